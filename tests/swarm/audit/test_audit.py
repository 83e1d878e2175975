"""The audit as a whole: a clean ledger passes, a tampered or damaged one is named, nothing ever raises."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from btard.rules.messages import Phase
from btard.swarm.audit import AuditResult, audit_ledger
from btard.swarm.ledger_files import EVIDENCE_DIRECTORY, LEDGER_FILE

SEALS = 8
BYTES_TRIED = 12
"""Bytes changed in each table and kind of file; which ones is fixed by a seed."""


@pytest.fixture
def ledger(full_ledger: Path, tmp_path: Path) -> Path:
    """A copy of the full ledger's directory, to be changed at will."""
    return Path(shutil.copytree(full_ledger, tmp_path / "copy"))


def change(directory: Path, statement: str, *values: object) -> None:
    """Run one statement on a closed ledger."""
    database = sqlite3.connect(directory / LEDGER_FILE)
    with database:
        assert database.execute(statement, values).rowcount
    database.close()


def read(directory: Path, query: str) -> list[tuple[object, ...]]:
    """Rows of a closed ledger."""
    database = sqlite3.connect(directory / LEDGER_FILE)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def flip(data: bytes, chance: random.Random) -> bytes:
    """The data with one byte changed."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :]


def test_clean_ledger_passes(full_ledger: Path) -> None:
    """Everything is checked and counted, and the newest seal's missing signatures are no fault."""
    result = audit_ledger(full_ledger)
    assert result.problems == ()
    assert result == AuditResult(True, SEALS, 6, 3, 9, 4, 5, (), result.notes)
    assert [note.split(" and ")[0] for note in result.notes] == ["seal 7 is the newest"]


def test_file_and_directory_name_the_same_ledger(full_ledger: Path) -> None:
    """The path may be the file or the directory around it."""
    assert audit_ledger(full_ledger / LEDGER_FILE) == audit_ledger(full_ledger)


def test_audit_writes_nothing(ledger: Path) -> None:
    """The directory is the same afterwards, byte for byte."""

    def snapshot() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in ledger.rglob("*") if path.is_file()}

    before = snapshot()
    audit_ledger(ledger)
    assert snapshot() == before


def test_ledger_of_a_running_peer_can_be_audited(make_world: Callable[..., Any]) -> None:
    """What is only in the write-ahead log counts."""
    world = make_world()
    world.seal()
    assert audit_ledger(world.directory).seals == 2


COLUMNS = [
    ("messages", "envelope", ""),
    ("seals", "seal", f"WHERE round < {SEALS - 2}"),
    ("signatures", "signature", ""),
    ("signatures", "signer", ""),
    ("departures", "departure", ""),
    ("departures", "peer", ""),
    ("blobs", "data", ""),
    ("blobs", "name", ""),
    ("meta", "value", ""),
]


@pytest.mark.parametrize(("table", "column", "where"), COLUMNS)
def test_changed_byte_is_found(ledger: Path, table: str, column: str, where: str) -> None:
    """Whatever byte of a stored value changes, the audit fails with a line that says where."""
    chance = random.Random(f"{table}.{column}")
    rows = read(ledger, f"SELECT rowid, {column} FROM {table} {where}")  # noqa: S608
    update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
    for row, data in (chance.choice(rows) for _ in range(BYTES_TRIED)):
        assert isinstance(data, bytes)
        damaged = flip(data, chance)
        change(ledger, update, damaged, row)
        result = audit_ledger(ledger)
        assert not result.ok, (row, data.hex(), damaged.hex())
        assert all(len(problem.splitlines()) == 1 for problem in result.problems)
        change(ledger, update, data, row)
    assert audit_ledger(ledger).ok


def test_changed_evidence_file_is_found(ledger: Path) -> None:
    """Whatever byte of an evidence file changes, the audit fails."""
    chance = random.Random("files")
    files = sorted((ledger / EVIDENCE_DIRECTORY).iterdir())
    for file in (chance.choice(files) for _ in range(BYTES_TRIED)):
        data = file.read_bytes()
        file.write_bytes(flip(data, chance))
        assert not audit_ledger(ledger).ok
        file.write_bytes(data)
    assert audit_ledger(ledger).ok


@pytest.mark.parametrize("table", ["messages", "seals", "signatures", "departures"])
def test_moved_row_is_found(ledger: Path, table: str) -> None:
    """A row under another round is not what it says."""
    change(ledger, f"UPDATE {table} SET round = 99 WHERE rowid = (SELECT max(rowid) FROM {table})")  # noqa: S608
    assert not audit_ledger(ledger).ok


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM departures WHERE round = 1", "left without a departure"),
        ("DELETE FROM departures WHERE round = 4", "the ban list and the departures disagree"),
        ("DELETE FROM signatures WHERE round = 3", "lacks the signatures of more than half"),
        ("DELETE FROM signatures WHERE round = 0", "the founder did not sign"),
        ("DELETE FROM seals WHERE round = 3", "seal 3 is missing"),
        ("DELETE FROM blobs", "is missing or altered"),
        ("DELETE FROM meta WHERE name = 'owner'", "not a ledger of this version"),
    ],
)
def test_deleted_rows_are_found(ledger: Path, statement: str, words: str) -> None:
    """What is gone is missed."""
    change(ledger, statement)
    assert any(words in problem for problem in audit_ledger(ledger).problems)


def test_deleted_evidence_file_is_found(ledger: Path) -> None:
    """A column cannot be settled again without its slices."""
    next((ledger / EVIDENCE_DIRECTORY).iterdir()).unlink()
    (problem,) = audit_ledger(ledger).problems
    assert "missing or altered" in problem


def test_stranger_among_the_evidence_is_found(ledger: Path) -> None:
    """A file that is not named by its digest does not belong there; half-written ones do no harm."""
    (ledger / EVIDENCE_DIRECTORY / "00.bin.partial").write_bytes(b"half")
    assert audit_ledger(ledger).ok
    (ledger / EVIDENCE_DIRECTORY / "stranger.bin").write_bytes(b"?")
    assert not audit_ledger(ledger).ok


def test_other_configuration_is_found(ledger: Path) -> None:
    """A ledger with another, valid, configuration is another run's."""
    ((config,),) = read(ledger, "SELECT value FROM meta WHERE name = 'config'")
    assert isinstance(config, bytes)
    change(ledger, "UPDATE meta SET value = ? WHERE name = 'config'", config.replace(b"seed = 0", b"seed = 1"))
    problems = audit_ledger(ledger).problems
    assert any("another run" in problem for problem in problems)


def test_commit_of_ours_pins_the_newest_seal(make_world: Callable[..., Any]) -> None:
    """Once our own COMMIT has signed the newest seal, that seal cannot be exchanged in our ledger."""
    world = make_world()
    world.seal(signers=[])
    me = world.me
    world.say(me, Phase.COMMIT, world.commit(me))
    assert audit_ledger(world.directory).ok
    world.seals.pop()
    world.seal(signers=[], state=b"o" * 32)
    (problem,) = audit_ledger(world.directory).problems
    assert "another seal than the one stored" in problem


def damage_nothing_there(directory: Path) -> None:
    """No file."""
    (directory / LEDGER_FILE).unlink()


def damage_text(directory: Path) -> None:
    """Not SQLite."""
    (directory / LEDGER_FILE).write_text("not a database" * 500)


def damage_empty(directory: Path) -> None:
    """An empty file, which SQLite takes for an empty database."""
    (directory / LEDGER_FILE).write_bytes(b"")


def damage_cut(directory: Path) -> None:
    """The second half is gone."""
    data = (directory / LEDGER_FILE).read_bytes()
    (directory / LEDGER_FILE).write_bytes(data[: len(data) // 2])


def damage_schema(directory: Path) -> None:
    """An additional table."""
    with sqlite3.connect(directory / LEDGER_FILE) as database:
        database.execute("CREATE TABLE more (x)")
    database.close()


def damage_view(directory: Path) -> None:
    """A table replaced by a view."""
    with sqlite3.connect(directory / LEDGER_FILE) as database:
        database.execute("DROP TABLE blobs")
        database.execute("CREATE VIEW blobs AS SELECT name, value FROM meta")
    database.close()


@pytest.mark.parametrize(
    "damage", [damage_nothing_there, damage_text, damage_empty, damage_cut, damage_schema, damage_view]
)
def test_damaged_file_is_a_problem(ledger: Path, damage: Callable[[Path], None]) -> None:
    """A file that is no ledger gives one line and no exception."""
    damage(ledger)
    result = audit_ledger(ledger)
    assert not result.ok
    assert len(result.problems) == 1
    assert len(result.problems[0].splitlines()) == 1


@pytest.fixture(scope="module")
def one_ledger(full_ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for many examples; each restores what it changed."""
    return Path(shutil.copytree(full_ledger, tmp_path_factory.mktemp("fuzz") / "copy"))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(min_size=1, max_size=64))
def test_any_bytes_anywhere_never_raise(one_ledger: Path, place: float, patch: bytes) -> None:
    """Whatever is written over the database file, the audit returns a result."""
    file = one_ledger / LEDGER_FILE
    original = file.read_bytes()
    start = int(place * len(original))
    file.write_bytes(original[:start] + patch + original[start + len(patch) :])
    try:
        assert isinstance(audit_ledger(one_ledger), AuditResult)
    finally:
        file.write_bytes(original)


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[2])
from tests.swarm.audit.conftest import fill
from tests.swarm.audit.world import build_world
fill(build_world(Path(sys.argv[1])))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ledger_of_a_killed_peer_audits_clean(tmp_path: Path) -> None:
    """After kill -9 everything recorded is there and proves itself."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parents[3])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    result = audit_ledger(tmp_path)
    assert result.problems == ()
    assert (result.seals, result.evidence_checked) == (SEALS, 9)
