"""``status``: where a peer stands, read from its directory while it runs and afterwards."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cli.conftest import listen_in_thread

from btard.identity import Identity
from btard.net import Terms
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.messages import Phase, Reveal, Stage
from btard.rules.seal import Seal
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE
from btard.training.address_book import ADDRESS_FILE
from btard.wire import sign_message

ME, ANN, BOB, EVE = (Identity(bytes([number]) * 32) for number in range(1, 5))
CONFIG = RunConfig(founder=ANN.peer_id.hex(), elements=64, chunk_size=8, rounds=50)
MEMBERS = tuple(sorted(bytes(item.peer_id) for item in (ME, ANN, BOB)))


def make_seal(number: int) -> Seal:
    """A seal without Eve, whom round 1 banned."""
    return Seal(CONFIG.run_id, number, 0, b"", bytes([number]) * 32, b"", MEMBERS, (EVE.peer_id,), b"", b"q" * 32, 5)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of a running peer that knows no seal yet."""
    with Ledger.create(tmp_path / "me", CONFIG, ME.peer_id) as opened:
        yield opened


def train(ledger: Ledger) -> None:
    """Let two rounds be done, in the first of which somebody was banned and somebody removed."""
    for number in range(3):
        ledger.record_seal(make_seal(number))
    ledger.record_departure(Departure(EVE.peer_id, 1, 0, DepartureKind.BAN, Cause.FALSE_GRADIENT, None))
    ledger.record_departure(Departure(b"p" * 32, 1, 0, DepartureKind.REMOVAL, Cause.SILENCE, None))


def look(call, directory: Path, *options: str) -> dict[str, object]:
    """Return what ``status --json`` prints."""
    ended = call("status", "--data-dir", directory, "--json", *options)
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def test_before_genesis(call, ledger, tmp_path):
    """A peer that waits for the others has no round, no roster and no state."""
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["running"], shown["round"], shown["roster_size"]) == ("waiting", True, None, 0)
    assert (shown["state"], shown["peers_reachable"]) == (None, 0)
    assert "training has not begun" in call("status", "--data-dir", tmp_path / "me").out


def test_a_running_member(call, ledger, tmp_path):
    """While the peer goes on: the last finished round on disk, its state, its roster, and who left."""
    train(ledger)
    shown = look(call, tmp_path / "me", "--no-dial")
    assert (shown["role"], shown["running"], shown["round"], shown["rounds"]) == ("member", True, 2, 50)
    assert shown["state"] == make_seal(2).state.hex()
    assert shown["roster"] == [peer.hex() for peer in MEMBERS]
    assert shown["bans"] == [{"peer": EVE.peer_id.hex(), "round": 1, "kind": "ban", "cause": "false-gradient"}]
    assert [item["cause"] for item in shown["departures"]] == ["silence"]
    assert shown["peers_reachable"] is None
    stage = Stage(3, 0, Phase.REVEAL)
    ledger.record_message(sign_message(ME, CONFIG.run_id, b"r" * 32, stage, b"", Reveal(b"n" * 32, ())))


def test_text(call, ledger, tmp_path):
    """Text says what JSON says."""
    train(ledger)
    ledger.close()
    lines = call("status", "--data-dir", tmp_path / "me", "--no-dial").out.splitlines()
    assert lines[0].endswith("member, not running")
    assert lines[1] == f"  round 2 of 50 is done, state {make_seal(2).state.hex()}"
    assert lines[2].startswith("  3 members: ")
    assert lines[3].endswith("cause: false-gradient")


@pytest.mark.parametrize(("kind", "role"), [("Banned", "banned"), ("Removed", "removed"), ("finished", "finished")])
def test_an_ended_peer(call, ledger, tmp_path, kind, role):
    """How a peer's part in the run ended is its role, with the reason."""
    train(ledger)
    ledger.record_ending(kind, "as seal 2 says")
    ledger.close()
    shown = look(call, tmp_path / "me", "--no-dial")
    assert (shown["role"], shown["running"], shown["reason"]) == (role, False, "as seal 2 says")


def test_a_killed_peer(call, ledger, tmp_path):
    """What a killed peer left in its write-ahead log counts."""
    train(ledger)
    left = tmp_path / "left"
    left.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / "me" / f"{LEDGER_FILE}{suffix}", left)
    shown = look(call, left, "--no-dial")
    assert (shown["role"], shown["running"], shown["round"]) == ("member", False, 2)


def test_members_that_answer(call, ledger, tmp_path):
    """Members that answer with their key are counted, each once; others at their addresses are not."""
    train(ledger)
    terms = Terms(CONFIG.run_id, CONFIG.field_digests)
    with ExitStack() as stack:
        ann, ann_too, eve = (stack.enter_context(listen_in_thread(item, terms)) for item in (ANN, ANN, EVE))
        known = {ANN: [ann, ann_too], BOB: [eve]}
        text = json.dumps({item.peer_id.hex(): [str(address) for address in places] for item, places in known.items()})
        (tmp_path / "me" / ADDRESS_FILE).write_text(text)
        assert look(call, tmp_path / "me")["peers_reachable"] == 1


def test_no_ledger(call, tmp_path):
    """Where no peer has been, or the file is none of ours, one line says so."""
    assert "there is no ledger" in call("status", "--data-dir", tmp_path).complaint
    (tmp_path / LEDGER_FILE).write_bytes(b"nonsense" * 1000)
    ended = call("status", "--data-dir", tmp_path)
    assert ended.code == 2
    assert "cannot read" in ended.complaint
