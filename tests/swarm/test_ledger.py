"""The ledger: no slot twice, no seal changed after a signature, nothing lost, one process."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from btard.errors import ConfigError, LocalProtocolError
from btard.identity import Context, Identity, digest
from btard.rules.config import RunConfig, format_run_file
from btard.rules.evidence import Cause, CertificateProof, ChargeProof, Departure, DepartureKind
from btard.rules.messages import Phase, Reveal, SignedMessage, Stage
from btard.rules.seal import Seal, SealSignature
from btard.swarm.departures import MAX_DEPARTURE
from btard.swarm.ledger import SETTLEMENTS, Ledger
from btard.swarm.ledger_files import (
    EVIDENCE_DIRECTORY,
    LEDGER_FILE,
    SMALL_BLOB,
    TABLES,
    evidence_file_name,
    was_put_aside,
)
from btard.wire import MAX_MESSAGE, sign_message, sign_seal

ME = Identity(b"m" * 32)
CONFIG = RunConfig(founder=ME.peer_id.hex(), elements=64, chunk_size=8)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A fresh ledger in an empty directory."""
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as opened:
        yield opened


def make_reveal(stage: Stage, nonce: bytes = b"n" * 32) -> SignedMessage:
    """A signed message of ours; its payload depends on the nonce."""
    return sign_message(ME, CONFIG.run_id, b"r" * 32, stage, b"", Reveal(nonce, ()))


def make_seal(round_number: int, state: bytes = b"s" * 32) -> Seal:
    """A seal tuple; the ledger does not look inside."""
    peers = (bytes(ME.peer_id),)
    return Seal(CONFIG.run_id, round_number, 0, b"", state, b"", peers, (), b"", b"q" * 32, 5)


def make_departure(
    round_number: int = 1, cause: Cause = Cause.SILENCE, proof: CertificateProof | None = None
) -> Departure:
    """Somebody's removal, by default without a proof."""
    return Departure(b"p" * 32, round_number, 0, DepartureKind.REMOVAL, cause, proof)


def sign(seal: Seal) -> SealSignature:
    """Our signature over a seal."""
    return SealSignature(ME.peer_id, sign_seal(ME, seal))


STAGE = Stage(1, 0, Phase.REVEAL)


def test_message_comes_back_byte_for_byte(ledger: Ledger) -> None:
    """A stored envelope is returned for its stage and for no other."""
    message = make_reveal(STAGE)
    ledger.record_message(message)
    assert ledger.stored_message(STAGE) == message.envelope
    assert ledger.stored_message(STAGE._replace(serial=1)) is None


def test_same_message_may_be_recorded_again(ledger: Ledger) -> None:
    """A restarted peer records what it re-sends without harm."""
    ledger.record_message(make_reveal(STAGE))
    ledger.record_message(make_reveal(STAGE))
    assert ledger.stored_message(STAGE) == make_reveal(STAGE).envelope


def test_slot_is_never_signed_twice(ledger: Ledger) -> None:
    """Other bytes for a stored slot are refused and the first ones stay (attack A7)."""
    ledger.record_message(make_reveal(STAGE))
    with pytest.raises(LocalProtocolError, match="REVEAL of round 1"):
        ledger.record_message(make_reveal(STAGE, b"o" * 32))
    assert ledger.stored_message(STAGE) == make_reveal(STAGE).envelope


def test_records_survive_reopening(tmp_path: Path) -> None:
    """Messages, seals, signatures and departures are all there after a restart."""
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as first:
        first.record_message(make_reveal(STAGE))
        first.record_seal(make_seal(0))
        first.record_signatures(0, [sign(make_seal(0))])
        first.record_departure(make_departure())
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as second:
        assert second.stored_message(STAGE) == make_reveal(STAGE).envelope
        assert list(second.seals()) == [make_seal(0)]
        assert second.signatures(0) == (sign(make_seal(0)),)
        assert list(second.departures()) == [make_departure()]


def test_newest_seal_is_the_last_recorded(ledger: Ledger) -> None:
    """There is no newest seal at first, then the one of the highest round."""
    assert ledger.newest_seal() is None
    ledger.record_seal(make_seal(0))
    ledger.record_seal(make_seal(1))
    assert ledger.newest_seal() == make_seal(1)


def test_unsigned_seal_of_a_reopened_round_is_replaced(ledger: Ledger) -> None:
    """Only the newest seal, and only while nobody signed it, gives way to another one."""
    ledger.record_seal(make_seal(0))
    ledger.record_seal(make_seal(1))
    ledger.record_seal(make_seal(1, b"t" * 32))
    assert [seal.state for seal in ledger.seals()] == [b"s" * 32, b"t" * 32]


def test_departures_that_came_with_a_replaced_seal_are_taken_back(ledger: Ledger) -> None:
    """What a round came to that is run again did not happen; whoever left in an attempt before stays gone."""
    guest, checker, other = (bytes([number]) * 32 for number in (201, 202, 203))
    proof = ChargeProof(guest, checker, ())
    with_seal = structs.replace(make_departure(), peer=guest, round=1, proof=proof)
    before = structs.replace(with_seal, peer=checker, attempt=0)
    otherwise = structs.replace(make_departure(), peer=other, round=1, attempt=1)
    first = structs.replace(make_seal(1), attempt=1)
    ledger.record_seal(make_seal(0))
    ledger.record_departure(before)
    ledger.record_departure(otherwise)
    ledger.record_seal(first, [structs.replace(with_seal, attempt=1)])
    ledger.record_seal(first)
    assert {item.peer for item in ledger.departures()} == {guest, checker, other}
    ledger.record_seal(structs.replace(make_seal(1), attempt=2))
    assert {item.peer for item in ledger.departures()} == {checker, other}


def test_signed_seal_stands(ledger: Ledger) -> None:
    """A seal with a recorded signature can be recorded again but not changed."""
    ledger.record_seal(make_seal(0))
    ledger.record_signatures(0, [sign(make_seal(0))])
    ledger.record_seal(make_seal(0))
    with pytest.raises(LocalProtocolError, match="signed already"):
        ledger.record_seal(make_seal(0, b"t" * 32))
    assert ledger.newest_seal() == make_seal(0)


def test_seals_come_in_turn(ledger: Ledger) -> None:
    """A round cannot be skipped, nor an old seal be replaced, nor a chain begin late."""
    with pytest.raises(LocalProtocolError, match="0 is next"):
        ledger.record_seal(make_seal(1))
    for number in (0, 1, 2, 0):
        ledger.record_seal(make_seal(number))
    for number in (1, 4):
        with pytest.raises(LocalProtocolError, match="3 is next"):
            ledger.record_seal(make_seal(number, b"t" * 32))


def test_signatures_need_their_seal(ledger: Ledger) -> None:
    """Signatures are recorded once, and only over a stored seal."""
    with pytest.raises(LocalProtocolError, match="not stored"):
        ledger.record_signatures(0, [sign(make_seal(0))])
    ledger.record_seal(make_seal(0))
    ledger.record_signatures(0, [sign(make_seal(0))])
    ledger.record_signatures(0, [sign(make_seal(0))])
    assert len(ledger.signatures(0)) == 1


def test_first_record_of_a_departure_stands(ledger: Ledger) -> None:
    """A departure found again after a restart, with other evidence, changes nothing."""
    ledger.record_departure(make_departure())
    ledger.record_departure(make_departure(cause=Cause.WITHHOLDING))
    ledger.record_departure(make_departure(2))
    assert list(ledger.departures()) == [make_departure(), make_departure(2)]


def test_departure_beyond_one_message_is_read_back(ledger: Ledger) -> None:
    """A certificate is as large as the messages of a whole roster."""
    departure = make_departure(proof=CertificateProof((bytes(MAX_MESSAGE),), 3 * (bytes(MAX_MESSAGE),)))
    ledger.record_departure(departure)
    assert list(ledger.departures()) == [departure]


@pytest.mark.parametrize(("size", "limit"), [(MAX_MESSAGE + 1, MAX_DEPARTURE), (5000, 5000)])
def test_departure_that_could_not_be_read_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, size: int, limit: int
) -> None:
    """A message larger than the wire carries, or a departure above the limit, is not written."""
    monkeypatch.setattr("btard.swarm.departures.MAX_DEPARTURE", limit)
    with pytest.raises(LocalProtocolError, match="cannot be stored"):
        ledger.record_departure(make_departure(proof=CertificateProof((), (bytes(size),))))
    assert list(ledger.departures()) == []


@pytest.mark.parametrize("size", [8, SMALL_BLOB, SMALL_BLOB + 4])
def test_evidence_is_kept_under_its_digest(ledger: Ledger, tmp_path: Path, size: int) -> None:
    """Small evidence goes into the table, large evidence into a file, never both."""
    data = bytes(size)
    name = digest(Context.EVIDENCE, data)
    ledger.record_departure(make_departure(), {name: memoryview(data)})
    file = tmp_path / EVIDENCE_DIRECTORY / evidence_file_name(name)
    with sqlite3.connect(tmp_path / LEDGER_FILE) as reader:
        rows = reader.execute("SELECT data FROM blobs WHERE name = ?", (name,)).fetchall()
    reader.close()
    assert rows == ([(data,)] if size <= SMALL_BLOB else [])
    assert file.exists() == (size > SMALL_BLOB)
    assert size <= SMALL_BLOB or file.read_bytes() == data


def test_evidence_under_a_wrong_name_is_refused(ledger: Ledger) -> None:
    """Nothing is written when a blob does not hash to its name."""
    with pytest.raises(LocalProtocolError, match="does not hash"):
        ledger.record_departure(make_departure(), {b"x" * 32: b"data"})
    assert list(ledger.departures()) == []


def test_a_commit_waits_for_the_disk(ledger: Ledger) -> None:
    """With these settings of SQLite what was written survives a power loss."""
    settings = [ledger._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_a_settlement_is_on_disk_with_the_next_message(tmp_path: Path) -> None:
    """A crash before takes it back; the newest are kept, and of an attempt the last one."""
    with pytest.raises(KeyError), Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        ledger.record_settlement(1, b"first")
        ledger.record_settlement(1, b"again")
        ledger.record_message(make_reveal(STAGE))
        ledger.record_settlement(SETTLEMENTS, b"lost")
        assert ledger.find_settlement(SETTLEMENTS) == b"lost"
        raise KeyError
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        assert [ledger.find_settlement(attempt) for attempt in (0, 1, SETTLEMENTS)] == [b"", b"again", b""]
        ledger.record_settlement(SETTLEMENTS, b"last")
        assert ledger.find_settlement(1) == b"again"
        ledger.record_settlement(SETTLEMENTS + 1, b"next")
        assert [ledger.find_settlement(attempt) for attempt in (1, SETTLEMENTS)] == [b"", b"last"]


def test_full_disk_is_told(ledger: Ledger) -> None:
    """A failed write raises ConfigError, leaves nothing behind, and later writes work again."""
    database = ledger._database
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    data = b"z" * SMALL_BLOB
    with pytest.raises(ConfigError, match="free space"):
        ledger.record_departure(make_departure(), {digest(Context.EVIDENCE, data): data})
    database.execute("PRAGMA max_page_count = 100000")
    assert list(ledger.departures()) == []
    ledger.record_departure(make_departure())


def count_rows(database: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table of a ledger has."""
    return {name: len(database.execute(f"SELECT * FROM {name}").fetchall()) for name in TABLES}  # noqa: S608


def count_rows_of(file: Path) -> dict[str, int]:
    """The same, as somebody sees it who has nothing but the file."""
    with closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as reader:
        return count_rows(reader)


def end_part(directory: Path, rounds: int = 1) -> dict[str, int]:
    """Store something, be removed, put the ledger aside, and return how many rows it had."""
    with Ledger.create(directory, CONFIG, ME.peer_id) as ledger:
        for number in range(rounds):
            ledger.record_message(make_reveal(Stage(number, 0, Phase.REVEAL)))
            ledger.record_seal(make_seal(number))
        ledger.record_departure(make_departure())
        ledger.record_ending("Removed", "silent")
        rows = count_rows(ledger._database)
        ledger.put_aside()
    return rows


def test_nothing_is_lost_where_somebody_reads_a_ledger_that_is_put_aside(tmp_path: Path) -> None:
    """Rows that are in the write-ahead log alone are kept too, and the reader does the next ledger no harm."""
    Ledger.create(tmp_path, CONFIG, ME.peer_id).close()
    reader = sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM departures").fetchone() == (0,)  # no checkpoint comes past this
    rows = end_part(tmp_path, 3)
    assert (rows["messages"], rows["seals"], rows["departures"], rows["endings"]) == (3, 3, 1, 1)
    assert count_rows_of(tmp_path / "ledger-until-round-2.sqlite3") == rows
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        assert (ledger.ending(), ledger.newest_seal(), ledger.stored_message(STAGE)) == (None, None, None)
        ledger.record_message(make_reveal(STAGE))
        reader.close()
    assert count_rows_of(tmp_path / LEDGER_FILE) == dict.fromkeys(TABLES, 0) | {"meta": 3, "messages": 1}


def test_each_ledger_that_is_put_aside_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Whoever leaves twice in one round has both; what a crash left half written is in nobody's way."""
    (tmp_path / "ledger-until-round-0-2.sqlite3.partial").write_bytes(b"half")
    assert not was_put_aside(tmp_path)
    rows = [end_part(tmp_path, number) for number in (1, 0, 1)]
    names = [f"ledger-until-round-0{again}.sqlite3" for again in ("", "-2", "-3")]
    assert [count_rows_of(tmp_path / name) for name in names] == rows
    assert sorted(path.name for path in tmp_path.glob("ledger-until*")) == sorted(names)
    assert was_put_aside(tmp_path)


def test_a_ledger_that_cannot_be_put_aside_stays(ledger: Ledger, tmp_path: Path) -> None:
    """Nothing is dropped before the copy is whole."""
    ledger.record_ending("left", "")
    (tmp_path / "ledger-until-round-0.sqlite3.partial").mkdir()
    with pytest.raises(ConfigError, match="old ledger in"):
        ledger.put_aside()
    assert ledger.ending() == ("left", "")


KILLED = """
import os, signal, sys
from pathlib import Path
from btard.identity import Identity
from btard.rules.config import parse_run_file
from btard.rules.messages import Phase, Reveal, Stage
from btard.swarm.ledger import Ledger
from btard.wire import sign_message
me = Identity(b"m" * 32)
directory = Path(sys.argv[1])
config = parse_run_file((directory / "run.toml").read_text())
ledger = Ledger.create(directory, config, me.peer_id)
for number in range(5):
    stage = Stage(number, 0, Phase.REVEAL)
    ledger.record_message(sign_message(me, config.run_id, b"r" * 32, stage, b"", Reveal(b"n" * 32, ())))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_loses_nothing_and_frees_the_directory(tmp_path: Path) -> None:
    """After kill -9 every recorded message is there and the directory can be opened at once."""
    (tmp_path / "run.toml").write_text(format_run_file(CONFIG))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        for number in range(5):
            stage = Stage(number, 0, Phase.REVEAL)
            assert ledger.stored_message(stage) == make_reveal(stage).envelope
