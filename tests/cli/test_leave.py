"""``leave``: a running peer says goodbye and ends well; where none runs, one line says what that means."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from tests.cli.test_status import CONFIG, ME, train

from btard.swarm.ledger import Ledger
from btard.training.leave_pipe import PIPE, LeavePipe


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of a running peer that knows no seal yet."""
    with Ledger.create(tmp_path / "me", CONFIG, ME.peer_id) as opened:
        yield opened


@contextmanager
def listen(directory: Path, ledger: Ledger, ending: tuple[str, str] | None) -> Iterator[None]:
    """Be a peer that ends in this way as soon as it is told to leave."""
    listens = threading.Event()

    async def live() -> None:
        pipe = LeavePipe(directory)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe.listen, scope.cancel)
                await trio.testing.wait_all_tasks_blocked()
                listens.set()
        if ending is not None:
            ledger.record_ending(*ending)
        ledger.close()
        pipe.close()

    thread = threading.Thread(target=trio.run, args=(live,))
    thread.start()
    assert listens.wait(60)
    yield
    thread.join(60)


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        (("left", ""), 0, "left: peer"),
        (("finished", ""), 0, "finished: peer"),
        (("Banned", "the roster convicted this peer"), 6, "banned: the roster convicted"),
        (("Removed", "the roster went on"), 7, "removed: the roster went on"),
        (None, 3, "it ended before its goodbye was settled"),
    ],
)
def test_how_the_peer_ended(call, ledger, tmp_path, ending, code, words):
    """The exit code tells whether it left, and what came first if it did not."""
    train(ledger)
    with listen(tmp_path / "me", ledger, ending):
        ended = call("leave", "--data-dir", tmp_path / "me")
    assert (ended.code, words in ended.out + ended.err) == (code, True), ended
    assert "says goodbye in the next" in ended.out


def test_before_training_begins(call, ledger, tmp_path):
    """A peer that waits for genesis just stops: nobody counts on it yet."""
    with listen(tmp_path / "me", ledger, None):
        ended = call("leave", "--data-dir", tmp_path / "me")
    assert (ended.code, ended.err) == (0, "")
    assert "it was no member yet" in ended.out


def test_no_peer_runs(call, ledger, tmp_path):
    """For a member that does not run there is nobody to tell, and nothing is kept for when it starts again."""
    train(ledger)
    ledger.close()
    ended = call("leave", "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "no peer runs in" in ended.complaint
    assert not (tmp_path / "me" / PIPE).exists()


def test_no_peer_runs_before_genesis(call, ledger, tmp_path):
    """For one that never was a member there is nothing to leave."""
    ledger.close()
    ended = call("leave", "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "nothing to leave" in ended.complaint


def test_a_peer_that_is_gone_already(call, ledger, tmp_path):
    """Leaving twice is no mistake."""
    train(ledger)
    ledger.record_ending("left", "")
    ledger.close()
    ended = call("leave", "--data-dir", tmp_path / "me")
    assert (ended.code, ended.err) == (0, "")
    assert "over: left" in ended.out


def test_a_program_that_does_not_listen(call, ledger, tmp_path, monkeypatch):
    """A directory that is in use by something that cannot be told is named, with what to do."""
    monkeypatch.setattr("btard.cli.leave.STARTING_S", 0.0)
    train(ledger)
    ended = call("leave", "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "end it with Ctrl-C" in ended.complaint


def test_no_ledger(call, tmp_path):
    """Where no peer has been, one line says so."""
    assert "there is no ledger" in call("leave", "--data-dir", tmp_path).complaint
