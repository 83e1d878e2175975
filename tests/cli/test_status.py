"""``status``: where a peer stands, read from its directory while it runs and afterwards."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from tests.cli.conftest import listen_in_thread

from btard.cli.status_measures import find_door
from btard.dht.directory import NODES_FILE
from btard.identity import Identity, Puzzle, short
from btard.net import Address, Hub, TcpTransport, Terms
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.messages import Phase, Reveal
from btard.rules.messages import Stage as Place
from btard.rules.seal import Candidate, Seal, SealSignature
from btard.swarm.joining.fetching_state import TRANSFER_DIRECTORY
from btard.swarm.joining.hearing_seals import HEARD_FILE, note_heard
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE
from btard.training.address_book import ADDRESS_FILE
from btard.training.checkup import CheckUps, Stage
from btard.training.notebook import NOTEBOOK_FILE, Notebook
from btard.wire import Ticket, compute_seal_digest, encode_seal, parse_ticket, sign_message, sign_seal

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
    """A peer that waits for the others has no round, no roster and no state; identity work has every peer."""
    Notebook(tmp_path / "me" / NOTEBOOK_FILE, ME.peer_id, CONFIG.run_id).note_identity(7)
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


def sign(ledger: Ledger, number: int, *signers: Identity) -> None:
    """Let these members have signed a seal."""
    signatures = [SealSignature(item.peer_id, sign_seal(item, make_seal(number))) for item in signers]
    ledger.record_signatures(number, signatures)
    ledger.sync()


def test_candidates(call, ledger, tmp_path):
    """Whoever is on probation after the last finished round is listed, with since when and how often it has worked."""
    train(ledger)
    ledger.record_seal(structs.replace(make_seal(3), candidates=(Candidate(EVE.peer_id, 1, 2),)))
    ledger.sync()
    assert look(call, tmp_path / "me")["candidates"] == [{"peer": EVE.peer_id.hex(), "since": 1, "worked": 2}]
    shown = call("status", "--data-dir", tmp_path / "me").out
    assert f"1 candidates of 32 rounds of probation: {short(EVE.peer_id)} (since round 1, worked 2)" in shown


def test_invitation(call, ledger, tmp_path):
    """A member prints a ticket that leads to the members' addresses, through the newest seal with a majority."""
    train(ledger)
    assert look(call, tmp_path / "me")["signed_seal"] is None
    sign(ledger, 1, ME, ANN)
    sign(ledger, 2, BOB)
    places = {BOB: "203.0.113.5:4001", ANN: "127.0.0.1:4000", EVE: "203.0.113.9:4001", ME: "0.0.0.0:4002"}
    known = {item.peer_id.hex(): [place] for item, place in places.items()}
    (tmp_path / "me" / ADDRESS_FILE).write_text(json.dumps(known))
    (tmp_path / "me" / NODES_FILE).write_text(json.dumps([["198.51.100.7", 4001], ["203.0.113.5", 4001]]))
    shown = look(call, tmp_path / "me")
    digest = compute_seal_digest(make_seal(1))
    assert (shown["signed_round"], shown["signed_seal"]) == (1, digest.hex())
    expected = Ticket(CONFIG.run_id, ANN.peer_id, ("203.0.113.5:4001", "198.51.100.7:4001"), digest)
    assert parse_ticket(shown["ticket"]) == expected
    lines = call("status", "--data-dir", tmp_path / "me").out.splitlines()
    assert lines[-1] == shown["ticket"]
    assert lines[-3].endswith(f"{digest.hex()} (round 1)")


def test_invitations_come_from_members_who_know_an_address(call, ledger, tmp_path):
    """Without an address that others can dial, or from a peer that is no member any more, there is no ticket."""
    train(ledger)
    sign(ledger, 2, ME, ANN)
    assert look(call, tmp_path / "me")["ticket"] is None
    note_address(tmp_path / "me", Address("127.0.0.1", 4003))
    assert parse_ticket(str(look(call, tmp_path / "me")["ticket"])).bootstrap == ("127.0.0.1:4003",)
    ledger.record_ending("Removed", "")
    assert look(call, tmp_path / "me")["ticket"] is None


def test_stranger(call, ledger, tmp_path):
    """A stranger's ledger is empty; its notebook says how far its ticket is."""
    notebook = Notebook(tmp_path / "me" / NOTEBOOK_FILE, ME.peer_id, CONFIG.run_id)
    notebook.note_identity(7)
    puzzle = Puzzle(CONFIG.run_id, ME.peer_id, 7, 12, b"q" * 32, 8, 1)
    notebook.note_search(puzzle, 300, 310, None)
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["round"], shown["work"]) == (
        "applying",
        None,
        {"evaluations": 310, "ticket_round": None},
    )
    assert "the run goes on without it; 310 evaluations" in call("status", "--data-dir", tmp_path / "me").out
    notebook.note_search(puzzle, 400, 410, puzzle.make_ticket(399))
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["work"]) == ("candidate", {"evaluations": 410, "ticket_round": 12})
    assert "found on round 12: it asks for a place" in call("status", "--data-dir", tmp_path / "me").out
    train(ledger)
    ledger.sync()
    assert (look(call, tmp_path / "me")["role"], look(call, tmp_path / "me")["work"]) == ("member", None)


def test_stranger_that_has_heard_how_the_run_stands(call, ledger, tmp_path):
    """Whoever looks for its first ticket knows the newest round, its members and its state by others' seals."""
    note_heard(tmp_path / "me", make_seal(5))
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["round"], shown["roster_size"]) == ("applying", 5, 3)
    assert (shown["state"], shown["candidates"], shown["ticket"]) == (make_seal(5).state.hex(), [], None)
    lines = call("status", "--data-dir", tmp_path / "me").out.splitlines()
    assert lines[1] == "  the run goes on without it; 0 evaluations of its ticket done"
    assert lines[2] == f"  round 5 of 50 is done, state {make_seal(5).state.hex()}"
    train(ledger)
    ledger.sync()
    assert look(call, tmp_path / "me")["round"] == 2, "a member's own seals count"


def test_stranger_on_probation(call, ledger, tmp_path):
    """A candidate sees itself among the candidates; its ticket is spent by then."""
    note_heard(tmp_path / "me", structs.replace(make_seal(9), candidates=(Candidate(ME.peer_id, 7, 2),)))
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["round"], shown["work"]["ticket_round"]) == ("candidate", 9, None)
    assert shown["candidates"] == [{"peer": ME.peer_id.hex(), "since": 7, "worked": 2}]
    assert "on probation: 2 of 32 rounds worked" in call("status", "--data-dir", tmp_path / "me").out


@pytest.mark.parametrize("data", [b"", b"junk", encode_seal(structs.replace(make_seal(5), run_id=b"x" * 32))])
def test_seal_that_is_damaged_or_of_another_run(call, ledger, tmp_path, data):
    """What a crash, or another run in the same directory, left is as good as nothing."""
    (tmp_path / "me" / HEARD_FILE).write_bytes(data)
    shown = look(call, tmp_path / "me")
    assert (shown["role"], shown["round"]) == ("waiting", None)


def test_stranger_that_fetches_the_state(call, ledger, tmp_path):
    """Before it works for a ticket, a stranger fetches the state: it does not wait for a genesis then."""
    (tmp_path / "me" / TRANSFER_DIRECTORY).mkdir()
    assert look(call, tmp_path / "me")["role"] == "applying"


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
