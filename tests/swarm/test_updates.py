"""Aggregates on their way to the disk, where a round is run again before the first one of it is there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trio

from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.swarm.compute import InlineCompute
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import SMALL_BLOB, UPDATES_DIRECTORY
from btard.swarm.updates import Updates

ME = Identity(bytes(32))
ROUND, WRITE_S = 5, 1.0


class SlowDisk(InlineCompute):
    """Writes one file after another, each in so much virtual time."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return ``work()``."""
        async with self._turn:
            await trio.sleep(WRITE_S)
            return await super().run(work)


@pytest.mark.parametrize("waits_at", [0.0, 1.5])
async def test_the_aggregate_of_the_last_attempt_is_waited_for(
    waits_at: float, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The end of the void one's write is neither the end of the wait nor an error, nor is a wait for it in vain."""
    ledger: Any = SimpleNamespace(record_update=lambda *_, **_options: None, find_update=lambda _number: (True, None))
    updates = Updates(tmp_path, ledger, SlowDisk())
    ended: list[float] = []

    async def wait() -> None:
        await updates.written(ROUND)
        ended.append(trio.current_time() - begun)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = begun + 5 * WRITE_S
        for value in (0.0, 1.0):
            write = updates.keep(ROUND, torch.full((SMALL_BLOB,), value), is_applied=True)
            assert write is not None
            nursery.start_soon(write)
            if value == 0.0:
                nursery.start_soon(wait)  # from the attempt that is over
            await trio.sleep(WRITE_S / 4)
        await trio.sleep(waits_at)
        await wait()
    assert ended == [pytest.approx(WRITE_S), pytest.approx(2 * WRITE_S)]
    written = updates.load(ROUND, SMALL_BLOB)
    assert written is not None and written.aggregate[0] == 1.0


@pytest.mark.parametrize("elements", [1, SMALL_BLOB // 4, SMALL_BLOB // 4 + 1])
async def test_our_part_comes_back(elements: int, tmp_path: Path) -> None:
    """The newest alone, of the attempt that is asked for, from the ledger or from a file."""
    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, InlineCompute())
        for attempt, value in ((1, 0.0), (2, 1.0)):
            later = updates.keep_part(ROUND, attempt, torch.full((elements,), value))
            assert (later is None) == (4 * elements <= SMALL_BLOB)
            if later is not None:
                await later()
        ledger.sync()
    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, InlineCompute())
        found = updates.load_part(ROUND, 2, elements)
        assert found is not None and torch.equal(found, torch.ones(elements))
        assert updates.load_part(ROUND, 1, elements) is None
        assert updates.load_part(ROUND + 1, 2, elements) is None
        assert updates.load_part(ROUND, 2, elements + 1) is None


async def keep_large_part(updates: Updates, attempt: int, value: float) -> None:
    """Write a part that is too large for the ledger."""
    later = updates.keep_part(ROUND, attempt, torch.full((SMALL_BLOB,), value))
    assert later is not None
    await later()


@pytest.mark.parametrize("left", [b"", b"123", None])
async def test_a_part_whose_file_is_damaged_is_none(left: bytes | None, tmp_path: Path) -> None:
    """Then the others are asked for it."""
    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, InlineCompute())
        await keep_large_part(updates, 1, 1.0)
        (file,) = (tmp_path / UPDATES_DIRECTORY).glob("part-*.bin")
        if left is None:
            file.unlink()
        else:
            file.write_bytes(left)
        assert updates.load_part(ROUND, 1, SMALL_BLOB) is None


async def test_a_crash_before_the_next_attempt_says_anything_leaves_the_part_of_the_last(tmp_path: Path) -> None:
    """The file of the next attempt is there already; what the ledger knows is the one before."""
    config = RunConfig(founder=ME.peer_id.hex())
    with pytest.raises(KeyError), Ledger.create(tmp_path, config, ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, InlineCompute())
        await keep_large_part(updates, 1, 1.0)
        ledger.sync()
        await keep_large_part(updates, 2, 2.0)
        raise KeyError
    with Ledger.create(tmp_path, config, ME.peer_id) as ledger:
        found = Updates(tmp_path, ledger, InlineCompute()).load_part(ROUND, 1, SMALL_BLOB)
        assert found is not None and found[0] == 1.0


async def test_a_write_that_is_given_up_does_not_hide_the_part_of_the_next_attempt(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A thread cannot be stopped: it ends when the ledger has a newer part."""

    class Unstoppable(SlowDisk):
        async def run(self, work: Callable[[], Any]) -> Any:
            with trio.CancelScope(shield=True):
                return await super().run(work)

    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, Unstoppable())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_large_part, updates, 1, 1.0)
            await trio.sleep(WRITE_S / 2)
            nursery.cancel_scope.cancel()
            assert updates.keep_part(ROUND, 2, torch.ones(8)) is None
        assert updates.load_part(ROUND, 2, 8) is not None


async def keep_in_file(updates: Updates, number: int) -> None:
    """Write the ĝ of a round that is too large for the ledger: its own number all over."""
    later = updates.keep(number, torch.full((SMALL_BLOB,), float(number)), is_applied=True)
    assert later is not None
    await later()


async def test_files_of_forgotten_rounds_are_written_over(tmp_path: Path) -> None:
    """Room for so many as were dropped last, and none that somebody may still read."""
    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates, directory = Updates(tmp_path, ledger, InlineCompute()), tmp_path / UPDATES_DIRECTORY
        for number in range(1, 5):
            await keep_in_file(updates, number)
        rooms = {path.stat().st_ino for path in directory.iterdir()}
        reader = updates.map(2)
        assert reader is not None
        updates.forget(3)
        for number in (5, 6, 7):
            assert updates.load(number - 4, SMALL_BLOB) is None
            await keep_in_file(updates, number)
        places = {path.name: path.stat().st_ino for path in directory.iterdir()}
        assert len(places) == 4 and len(rooms & set(places.values())) == 3  # 4 itself, and what 1 and 3 were
        assert set(reader.cast("f")) == {2.0}
        for number in (4, 5, 6, 7):
            found = updates.load(number, SMALL_BLOB)
            assert found is not None and torch.equal(found.aggregate, torch.full((SMALL_BLOB,), float(number)))


async def test_room_that_was_not_used_is_given_back(tmp_path: Path) -> None:
    """The disk holds no more spare files than were dropped last, and a start removes them."""
    config = RunConfig(founder=ME.peer_id.hex())
    with Ledger.create(tmp_path, config, ME.peer_id) as ledger:
        updates, directory = Updates(tmp_path, ledger, InlineCompute()), tmp_path / UPDATES_DIRECTORY
        for number in range(1, 6):
            await keep_in_file(updates, number)
        updates.forget(3)
        assert len(list(directory.glob("*.partial"))) == 3
        updates.forget(4)
        assert sorted(path.name[:24] for path in directory.iterdir()) == [f"round-{n:018d}" for n in (4, 5)]
    with Ledger.create(tmp_path, config, ME.peer_id):
        assert [path.name for path in directory.iterdir()] == [f"round-{5:018d}.bin"]


async def test_the_end_of_a_run_gives_all_room_back(tmp_path: Path) -> None:
    """Nobody starts a run again that is over."""
    with Ledger.create(tmp_path, RunConfig(founder=ME.peer_id.hex()), ME.peer_id) as ledger:
        updates = Updates(tmp_path, ledger, InlineCompute())
        for number in (1, 2):
            await keep_in_file(updates, number)
        updates.forget(1)
        updates.give_room_back()
        assert [path.name for path in (tmp_path / UPDATES_DIRECTORY).iterdir()] == [f"round-{2:018d}.bin"]
        await keep_in_file(updates, 3)  # a round that is run again after all
