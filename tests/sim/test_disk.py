"""The disk of a simulated machine: what is in memory while a peer runs is in its file when it does not."""

from contextlib import closing, suppress
from pathlib import Path
from shutil import copytree

from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.messages import Phase, Reveal, SignedMessage, Stage
from btard.sim.disk import ledgers_in_memory, load
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE
from btard.wire import open_message, sign_message

ME = Identity(b"m" * 32)
CONFIG = RunConfig(founder=ME.peer_id.hex(), elements=64, chunk_size=8)


class Crashed(Exception):
    """The peer died."""


def make_message(attempt: int) -> SignedMessage:
    """A message of ours."""
    stage = Stage(1, attempt, Phase.REVEAL)
    envelope = sign_message(ME, CONFIG.run_id, bytes(32), stage, b"", Reveal(bytes(32), ())).envelope
    return open_message(CONFIG.run_id, envelope)


def store(directory: Path, attempt: int) -> None:
    """Write one message to the ledger, begin to write another one, and die."""
    with suppress(Crashed), Ledger.create(directory, CONFIG, ME.peer_id) as ledger:
        ledger.record_message(make_message(attempt))
        ledger.record_work(1, attempt, b"lazy")
        raise Crashed


def find(directory: Path) -> tuple[list[int], bytes | None]:
    """The attempts with a stored message, and what was written lazily."""
    with Ledger.create(directory, CONFIG, ME.peer_id) as ledger:
        known = [attempt for attempt in range(4) if ledger.stored_message(make_message(attempt).slot.stage)]
        return known, ledger.newest_work()


def test_what_was_committed_outlives_the_peer(tmp_path: Path) -> None:
    """A ledger in memory is one on disk afterwards, and the other way round, without what a crash took back."""
    store(tmp_path, 0)
    with ledgers_in_memory():
        store(tmp_path, 1)
        assert find(tmp_path) == ([0, 1], None)
        store(tmp_path, 2)
    store(tmp_path, 3)
    assert find(tmp_path) == ([0, 1, 2, 3], None)


def test_a_running_peer_has_its_ledger_in_memory(tmp_path: Path) -> None:
    """Nothing waits for a disk: the file is there when the ledger is closed."""
    with ledgers_in_memory(), Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        ledger.record_message(make_message(0))
        assert not (tmp_path / LEDGER_FILE).exists()
    assert find(tmp_path) == ([0], None)


def test_a_killed_process_leaves_its_log_to_the_simulation(tmp_path: Path) -> None:
    """What is only in the write-ahead log is loaded too."""
    with Ledger.create(tmp_path / "running", CONFIG, ME.peer_id) as ledger:
        ledger.record_message(make_message(0))
        copytree(tmp_path / "running", tmp_path / "killed")
    with ledgers_in_memory():
        assert find(tmp_path / "killed") == ([0], None)


def test_what_nobody_committed_is_not_written(tmp_path: Path) -> None:
    """A database that is closed within a transaction has what it had before."""
    database = load(tmp_path / "file")
    database.execute("CREATE TABLE rows (number INTEGER)")
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO rows VALUES (1)")
    database.close()
    with closing(load(tmp_path / "file")) as again:
        assert again.execute("SELECT * FROM rows").fetchall() == []
