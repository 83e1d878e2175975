"""How a running peer is told to leave: nothing outlives it, and nobody else can say so."""

import os
import stat
from pathlib import Path

import pytest
import trio

from btard.errors import ConfigError
from btard.training.leave_pipe import PIPE, LeavePipe, ask_to_leave, is_listening


class Leaver:
    """A peer that counts how often it is told to leave."""

    def __init__(self, directory: Path) -> None:
        self.pipe, self.told = LeavePipe(directory), 0
        self._changed, self._scope = trio.Event(), trio.CancelScope()

    async def listen(self) -> None:
        """Be there until ``end``."""
        with self._scope:
            await self.pipe.listen(self.note)

    async def end(self) -> None:
        """Be gone."""
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        self.pipe.close()

    def note(self) -> None:
        """Be told."""
        self.told += 1
        self._changed.set()

    async def hear(self) -> None:
        """Return when told again."""
        await self._changed.wait()
        self._changed = trio.Event()


@pytest.fixture
async def leaver(tmp_path: Path, nursery: trio.Nursery) -> Leaver:
    """A peer that listens."""
    leaver = Leaver(tmp_path)
    nursery.start_soon(leaver.listen)
    await trio.testing.wait_all_tasks_blocked()
    return leaver


async def test_a_running_peer_hears_every_request(leaver: Leaver, tmp_path: Path) -> None:
    """It is told once for each time somebody asks, and looking whether it is there tells it nothing."""
    for _ in range(2):
        assert is_listening(tmp_path)
        assert ask_to_leave(tmp_path)
        with trio.fail_after(10):
            await leaver.hear()
    assert leaver.told == 2


async def test_only_the_owner_may_ask(leaver: Leaver, tmp_path: Path) -> None:
    """The pipe is open to its owner alone, whatever the directory allows."""
    assert stat.S_IMODE((tmp_path / PIPE).stat().st_mode) == 0o600


async def test_where_nobody_runs_nothing_is_left_for_later(
    leaver: Leaver, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """A request to a peer that is gone fails, and one that it never read does not reach its successor."""
    assert ask_to_leave(tmp_path)
    leaver.pipe._path = tmp_path / "elsewhere"  # killed: its pipe stays behind
    await leaver.end()
    assert (tmp_path / PIPE).exists()
    assert not ask_to_leave(tmp_path)
    assert not is_listening(tmp_path)
    successor = Leaver(tmp_path)
    nursery.start_soon(successor.listen)
    await trio.testing.wait_all_tasks_blocked()
    assert is_listening(tmp_path)
    assert successor.told == 0
    await successor.end()
    assert not (tmp_path / PIPE).exists()


async def test_a_peer_that_ends_leaves_the_pipe_of_the_next_alone(leaver: Leaver, tmp_path: Path) -> None:
    """A process that is slow to end does not deafen the one that took its place."""
    (tmp_path / PIPE).unlink()
    os.mkfifo(tmp_path / PIPE)
    await leaver.end()
    assert (tmp_path / PIPE).exists()


def test_what_is_no_pipe_is_left_alone(tmp_path: Path) -> None:
    """A file or a link of that name is neither written to nor taken for a peer."""
    (tmp_path / PIPE).write_text("mine")
    assert not ask_to_leave(tmp_path)
    assert (tmp_path / PIPE).read_text() == "mine"
    (tmp_path / PIPE).rename(tmp_path / "file")
    (tmp_path / PIPE).symlink_to(tmp_path / "file")
    assert not ask_to_leave(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_pipe_has_been_told(tmp_path: Path) -> None:
    """More requests than the pipe holds are no error: a peer that is busy hears the first of them."""
    os.mkfifo(tmp_path / PIPE)
    reader = os.open(tmp_path / PIPE, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(reader, bytes(4096))
        assert ask_to_leave(tmp_path)
    finally:
        os.close(reader)


def test_another_users_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not write to the pipe learns why."""

    def refuse(*arguments: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="another user's"):
        ask_to_leave(tmp_path)


async def test_a_directory_without_pipes_is_no_end(tmp_path: Path) -> None:
    """Where no pipe can be made the peer goes on, and cannot be told."""
    leaver = Leaver(tmp_path / "missing")
    with trio.fail_after(10):
        await leaver.pipe.listen(leaver.note)
    leaver.pipe.close()
    assert not ask_to_leave(tmp_path / "missing")
