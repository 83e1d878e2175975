"""``status``: where a peer stands, read from its directory while it runs and afterwards."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import listen_in_thread

from btard.cli.status_measures import find_door
from btard.identity import Identity
from btard.net import Address, Hub, TcpTransport, Terms
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.messages import Phase, Reveal
from btard.rules.messages import Stage as Place
from btard.rules.seal import Seal
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE
from btard.training.address_book import ADDRESS_FILE
from btard.training.checkup import CheckUps, Stage
from btard.wire import sign_message

ME, ANN, BOB, EVE = (Identity(bytes([number]) * 32) for number in range(1, 5))
CONFIG = RunConfig(founder=ANN.peer_id.hex(), elements=64, chunk_size=8, rounds=50)
TERMS = Terms(CONFIG.run_id, CONFIG.field_digests)
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


def note_address(directory: Path, address: Address) -> None:
    """Let the peer listen at ``address``, as its directory says."""
    (directory / ADDRESS_FILE).write_text(json.dumps({ME.peer_id.hex(): [str(address)]}))


def look(call, directory: Path) -> dict[str, object]:
    """Return what ``status --json`` prints."""
    ended = call("status", "--data-dir", directory, "--json")
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def test_before_genesis(call, ledger, tmp_path):
    """A peer that waits for the others has no round, no roster and no state."""
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["running"], shown["round"], shown["roster_size"]) == ("waiting", True, None, 0)
    assert (shown["state"], shown["peers_reachable"]) == (None, None)
    assert "training has not begun" in call("status", "--data-dir", tmp_path / "me").out


def test_a_running_member(call, ledger, tmp_path):
    """While the peer goes on: the last finished round on disk, its state, its roster, and who left."""
    train(ledger)
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["running"], shown["round"], shown["rounds"]) == ("member", True, 2, 50)
    assert shown["state"] == make_seal(2).state.hex()
    assert shown["roster"] == [peer.hex() for peer in MEMBERS]
    assert shown["bans"] == [{"peer": EVE.peer_id.hex(), "round": 1, "kind": "ban", "cause": "false-gradient"}]
    assert [item["cause"] for item in shown["departures"]] == ["silence"]
    assert shown["peers_reachable"] is None
    stage = Place(3, 0, Phase.REVEAL)
    ledger.record_message(sign_message(ME, CONFIG.run_id, b"r" * 32, stage, b"", Reveal(b"n" * 32, ())))


def test_text(call, ledger, tmp_path):
    """Text says what JSON says."""
    train(ledger)
    ledger.close()
    lines = call("status", "--data-dir", tmp_path / "me").out.splitlines()
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
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["running"], shown["reason"]) == (role, False, "as seal 2 says")


def test_a_killed_peer(call, ledger, tmp_path):
    """What a killed peer left in its write-ahead log counts."""
    train(ledger)
    left = tmp_path / "left"
    left.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / "me" / f"{LEDGER_FILE}{suffix}", left)
    shown = look(call, left)
    assert (shown["role"], shown["running"], shown["round"]) == ("member", False, 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_running_peer_is_asked(call, ledger, tmp_path, host):
    """A running peer tells how many members it has links to; it is asked where it listens."""
    train(ledger)

    def serve(hub: Hub, tcp: TcpTransport) -> None:
        CheckUps(hub, tcp, lambda: Stage(2, 3, 1, 5))

    with listen_in_thread(ME, TERMS, serve) as address:
        note_address(tmp_path / "me", Address(host, address.port))
        assert look(call, tmp_path / "me")["peers_reachable"] == 1
        assert "links to 1 of the others" in call("status", "--data-dir", tmp_path / "me").out


def test_whoever_else_answers_is_not_the_peer(call, ledger, tmp_path):
    """Where another key or nobody answers at the peer's address, nothing is said about its links."""
    train(ledger)
    with listen_in_thread(EVE, TERMS) as address:
        note_address(tmp_path / "me", address)
        assert look(call, tmp_path / "me")["peers_reachable"] is None
    assert look(call, tmp_path / "me")["peers_reachable"] is None


def test_wildcards_are_dialled_at_loopback():
    """A peer that listens on every interface is found on this machine."""
    assert find_door(Address("0.0.0.0", 4001)) == Address("127.0.0.1", 4001)
    assert find_door(Address("::", 4001)) == Address("::1", 4001)
    assert find_door(Address("192.0.2.1", 4001)) == Address("192.0.2.1", 4001)


def test_no_ledger(call, tmp_path):
    """Where no peer has been, or the file is none of ours, one line says so."""
    assert "there is no ledger" in call("status", "--data-dir", tmp_path).complaint
    (tmp_path / LEDGER_FILE).write_bytes(b"nonsense" * 1000)
    ended = call("status", "--data-dir", tmp_path)
    assert ended.code == 2
    assert "cannot read" in ended.complaint
