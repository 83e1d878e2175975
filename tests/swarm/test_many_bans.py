"""Ban lists only grow, and seals, places and answers carry them: a run closes before any of these is too long."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, build, find, play, require_sound

from btard.identity import Identity
from btard.net import MAX_CONTROL, Hub, MemoryNetwork, Terms
from btard.rules.admission import MAX_BANNED
from btard.rules.config import MAX_MEMBERS, RunConfig
from btard.rules.disputes import DisputeKind
from btard.rules.messages import MAX_ROSTER, Report
from btard.rules.seal import Candidate, Seal, SealSignature
from btard.swarm.events import Admitted
from btard.swarm.frames import SignedTuple
from btard.swarm.joining.handover import MAX_HANDOVER
from btard.swarm.joining.lineage import LineAnswer
from btard.swarm.joining.transfer_frames import Segment
from btard.swarm.records import CheckRecord, DisputeRecord, WorkRecord, decode_work
from btard.swarm.standing import MAX_SEALS, Answer, Question, Standing
from btard.wire import decode, decode_seal, encode, encode_seal

ME = Identity(b"m" * 32)
MOST = MAX_BANNED - 1 + 2 * MAX_ROSTER
"""Bans of a run that closed: all that were members and candidates then are banned as well."""
LARGE = 2**53 - 1
HASH = b"h" * 32


def name(count: int, kind: bytes) -> tuple[bytes, ...]:
    """So many peers."""
    return tuple(kind + number.to_bytes(31, "big") for number in range(count))


ROSTER = name(MAX_MEMBERS, b"m")
CANDIDATES = tuple(Candidate(peer, LARGE, LARGE) for peer in name(MAX_MEMBERS // 4, b"c"))
SIGNATURES = tuple(SealSignature(peer, bytes(64)) for peer in ROSTER)
PAIRS = tuple((one, two) for one in ROSTER for two in ROSTER if one < two)


def make_seal(banned: int, number: int = LARGE) -> Seal:
    """As large a seal as there is with so many bans."""
    return Seal(
        HASH, number, LARGE, HASH, HASH, HASH, ROSTER, name(banned, b"b"), HASH, HASH, LARGE, CANDIDATES, LARGE, LARGE
    )  # fmt: skip


def test_seals_of_a_closed_run_fit_all_that_carries_them() -> None:
    """A line, a segment, and the answer about somebody's standing."""
    item = SignedTuple(encode_seal(make_seal(MOST)), SIGNATURES)
    assert decode_seal(item.seal) == make_seal(MOST)
    for carrier in (LineAnswer((item,), 1, is_known=True), Segment((item.seal,) * 4), Answer((), (item,) * MAX_SEALS)):
        assert decode(encode(carrier), type(carrier)) == carrier


def test_place_of_a_closed_run_can_be_handed_over() -> None:
    """Though every pair is marked in each of its lists, and everybody is being checked."""
    report = Report((1.0,) * 64, 1.0)
    checks = tuple(CheckRecord(HASH, item.peer, LARGE, report) for item in CANDIDATES)
    banned = name(MOST, b"b")
    disputes = tuple(DisputeRecord(DisputeKind.REPORT, LARGE, peer, peer, MAX_MEMBERS) for peer in ROSTER)
    exempt, parts = tuple((number, LARGE) for number in range(MAX_MEMBERS)), tuple(range(MAX_MEMBERS))
    drawn, joined = PAIRS[:MAX_MEMBERS], ROSTER[:1]
    place = WorkRecord(
        make_seal(MOST), LARGE, ROSTER, banned, HASH, drawn, exempt, PAIRS, LARGE, ROSTER, banned, HASH, True,
        SIGNATURES, disputes, parts, PAIRS, PAIRS, PAIRS, LARGE, joined, checks, checks, joined, PAIRS,
    )  # fmt: skip
    body = encode(place)
    assert len(body) <= MAX_HANDOVER <= MAX_CONTROL
    assert decode_work(body) == place


@pytest.mark.parametrize(("banned", "seals"), [(MOST, 4), (8_000, 2)])
async def test_answer_about_a_standing_is_never_too_long(
    banned: int, seals: int, autojump_clock: trio.testing.MockClock
) -> None:
    """It ends where it is large, whatever an older version let the list become."""
    hub = Hub(MemoryNetwork().transport(ME, Terms(HASH)), ME.peer_id)
    told = [make_seal(banned, number) for number in range(10)]
    ledger: Any = SimpleNamespace(
        seals_from=lambda first, count: told[first : first + count], signatures=lambda number: SIGNATURES
    )
    broadcast: Any = SimpleNamespace(board=SimpleNamespace(messages_of=lambda peer: ()))
    config = RunConfig(founder=ME.peer_id.hex(), genesis_size=6, elements=100, chunk_size=10)
    answer, _ = await Standing(config, hub, ledger, broadcast)._serve(ME.peer_id, encode(Question(1)))
    shown = tuple(SignedTuple(encode_seal(item), SIGNATURES) for item in told[1 : 1 + seals])
    assert answer == encode(Answer((), shown))
    assert len(answer) < MAX_CONTROL


def test_stranger_is_told_that_a_run_has_banned_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself, and is never on probation."""
    monkeypatch.setattr("btard.rules.admission.MAX_BANNED", 0)
    swarm = build(tmp_path, {STRANGER: COMES_S}, rounds=20)
    outcome = play(swarm)
    assert "admits nobody any more" in str(outcome.peers[STRANGER].error)
    assert not find(outcome, STRANGER, Admitted)
    assert [peer.error for peer in outcome.peers[:MEMBERS]] == [None] * MEMBERS
    require_sound(swarm, outcome)
