"""Recoveries without a certificate: Dolev–Strong settles them, the same at all honest members (attacks A5)."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.watched_swarm import (
    KeepsBallot,
    Mute,
    W,
    Watcher,
    Z,
    find_recoveries,
    find_recoveries_of,
    read_departures,
)

from btard.attacks import LateChains, SharedCoalition
from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, ConclusionProof, DepartureKind
from btard.rules.messages import Phase, SignedMessage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Stranded
from btard.swarm.frames import Kind
from btard.wire import sign_message

Clock = trio.testing.MockClock


class ShowsTwoViews(Conduct):
    """Signs another view for every second member."""

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        if message.slot.stage.phase is not Phase.VIEW or recipient[0] % 2:
            return message.envelope
        payload = replace(message.payload, overdue=not message.payload.overdue)
        return sign_message(identity, run_id, message.roster, message.slot.stage, b"", payload).envelope


async def test_a_recovery_with_a_certificate_costs_nothing_beyond_views_and_ballots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A silent member is removed without a chain, a conclusion or a RESUME."""
    watcher = Watcher(monkeypatch, tmp_path, 5, w=Mute())
    outcome = await watcher.run()
    assert outcome.departures(DepartureKind.REMOVAL)[W].cause is Cause.SILENCE
    assert not any(event.is_fallback for event in find_recoveries(outcome))
    assert not {Kind.CHAIN, Kind.RESUME, Phase.CONCLUDE, Phase.RESUME} & set(watcher.frames)


async def test_rounds_without_trouble_hold_no_message_of_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Five broadcasts per member and round, a closing COMMIT, and one settlement when the run ends."""
    watcher = Watcher(monkeypatch, tmp_path, 5)
    await watcher.run()
    broadcast = 5 * 4  # each of five says it to each of the four others
    assert watcher.frames[Phase.CONFIRM] == 3 * broadcast
    assert watcher.frames[Phase.COMMIT] == 4 * broadcast
    settlement = Phase.VIEW, Phase.BALLOT, Kind.CERTIFICATE  # the number of the last one is that of HALT, too
    assert [watcher.frames[kind] for kind in settlement] == [broadcast] * 3
    assert not {Kind.CHAIN, Kind.RESUME, Phase.CONCLUDE} & set(watcher.frames)


async def test_a_vote_that_never_comes_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Z shows its view and keeps its ballot: the ballot of all others is elected, and W is removed."""
    watcher = Watcher(monkeypatch, tmp_path, 5, z=KeepsBallot(), w=Mute())
    outcome = await watcher.run()
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {W}
    assert any(event.is_fallback for event in find_recoveries(outcome))


@pytest.mark.parametrize("size", [5, 7])
async def test_a_view_timed_to_reach_some_before_they_vote_splits_nobody(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Honest members vote for different views, so no certificate forms: the final vector decides for all."""
    watcher = Watcher(monkeypatch, tmp_path, size, z=Conduct(), w=Mute())
    others = [peer for index, peer in enumerate(watcher.hostile.peers) if index not in (Z, W)]
    watcher.late = {peer: 1.9 if place % 2 else 2.1 for place, peer in enumerate(others)}
    watcher.late[watcher.hostile.peers[W]] = 2.1  # which serves what it holds
    outcome = await watcher.run()
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {W}
    assert {event.is_fallback for event in find_recoveries(outcome)} == {True}
    assert watcher.frames[Phase.CONCLUDE] > 0
    proofs = [
        departure.proof
        for peer in outcome.honest
        for departure in read_departures(watcher, peer.index)
        if departure.peer == watcher.hostile.peers[W]
    ]
    assert {type(proof) for proof in proofs} == {ConclusionProof}


async def test_two_views_in_a_fallback_are_banned_with_both_as_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Members held different views of Z, so none of its views counts, and both convict it."""
    watcher = Watcher(monkeypatch, tmp_path, 7, z=ShowsTwoViews(), w=Mute())
    watcher.late = dict.fromkeys(watcher.hostile.peers, 1.9)  # too late for anybody to pull the other before it votes
    outcome = await watcher.run()
    first = {peer.index: find_recoveries_of(peer)[0] for peer in outcome.honest}
    assert {event.is_fallback for event in first.values()} == {True}
    assert {event.banned for event in first.values()} == {(watcher.hostile.peers[Z],)}, "by the vector, not later"
    assert outcome.departures(DepartureKind.BAN)[Z].cause is Cause.EQUIVOCATION
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {W}


async def test_two_cheats_at_once_settle_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """One times its view and the other keeps its ballot, while a third is silent: three of seven."""
    watcher = Watcher(monkeypatch, tmp_path, 7, z=Conduct(), w=Mute())
    watcher.hostile.swarm.conducts[5] = KeepsBallot()
    others = [peer for index, peer in enumerate(watcher.hostile.peers) if index not in (Z, W, 5)]
    watcher.late = {peer: 1.9 if place % 2 else 2.1 for place, peer in enumerate(others)}
    outcome = await watcher.run()
    assert W in outcome.departures(DepartureKind.REMOVAL)
    assert any(event.is_fallback for event in find_recoveries(outcome))
    assert all(len({done.round for done in peer.rounds}) == 3 for peer in outcome.honest)


async def test_a_chain_shown_to_some_in_its_last_step_is_in_every_vector_or_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """No ballot is elected, so the vector decides; two sign a chain and show it to one half at the end of step 2."""
    watcher = Watcher(monkeypatch, tmp_path, 7, z=Conduct(), w=Mute())
    identities, peers, late = watcher.hostile.identities, watcher.hostile.peers, 5
    board = SharedCoalition()
    board.put("keys", peers[Z], tuple(map(float, identities[Z].seed)))
    others = [peer for index, peer in enumerate(peers) if index not in (Z, W, late)]
    liar = LateChains(2, 0, board, watcher.hostile.config.delay_s)
    monkeypatch.setattr(liar, "is_chosen", others[::2].__contains__)
    watcher.hostile.swarm.conducts[late] = liar
    watcher.late = {peer: 1.9 if place % 2 else 2.1 for place, peer in enumerate(others)}
    watcher.late |= {peers[index]: 2.1 for index in (W, late)}
    outcome = await watcher.run()
    assert liar.acted_in_round == 2
    assert {find_recoveries_of(peer)[0].is_fallback for peer in outcome.honest} == {True}
    assert W in outcome.departures(DepartureKind.REMOVAL)
    assert not [event for peer in outcome.honest for event in peer.events if isinstance(event, Stranded)]
