"""Recoveries without a certificate: Dolev–Strong settles them, the same at all honest members (attacks A5)."""

from collections import Counter
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.evidence import Cause, ConclusionProof, DepartureKind
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.sim import Outcome
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.ledger import Ledger
from btard.wire import open_message, sign_message

Clock = trio.testing.MockClock
Z, W = 1, 3
"""Z acts in recoveries; W brings them about."""


class Mute(Conduct):
    """Says nothing from a phase of round 2 on."""

    def says(self, stage: Stage) -> bool:
        return stage.round == 1 or (stage.round == 2 and stage.phase < Phase.REVEAL)


class KeepsBallot(Conduct):
    """Shows its views and votes for nothing."""

    def says(self, stage: Stage) -> bool:
        return stage.phase is not Phase.BALLOT


class ShowsTwoViews(Conduct):
    """Signs another view for every second member."""

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        if message.slot.stage.phase is not Phase.VIEW or recipient[0] % 2:
            return message.envelope
        payload = replace(message.payload, overdue=not message.payload.overdue)
        return sign_message(identity, run_id, message.roster, message.slot.stage, b"", payload).envelope


class Watcher:
    """What a network carried and what honest members saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, size: int, **conducts: Conduct) -> None:
        self.frames: Counter[Kind | Phase] = Counter()
        behaviours = {{"z": Z, "w": W}[name]: conduct for name, conduct in conducts.items()}
        config = {"genesis_size": size, "validators": 0, "rounds": 3}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=behaviours, watch=self.close_mouth)
        self.directory, self.late = directory, dict[PeerId, float]()
        self.hostile.swarm.network.delivery = self.deliver

    def close_mouth(self, index: int, event: Event) -> None:
        """Let nobody pull from Z what it shows late."""
        if index == Z and self.late and isinstance(event, RunStarted):
            del self.hostile.hubs[self.hostile.peers[Z]].serve[Kind.PULL_STAGE]

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        """Count control frames; show Z's views late to those named in ``late``."""
        if message.payload is None and message.kind == Kind.MESSAGE:
            phase = open_message(self.hostile.config.run_id, bytes(message.head)).slot.stage.phase
            self.frames[phase] += 1
            if phase is Phase.VIEW and sender == self.hostile.peers[Z]:
                return self.late.get(receiver, 0.0)
        elif message.payload is None and message.kind in set(Kind):
            self.frames[Kind(message.kind)] += 1
        return 0.0

    async def run(self) -> Outcome:
        """Run to the end; all honest members must agree and every ledger must hold."""
        outcome = await self.hostile.run()
        assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
        assert len(outcome.state_roots) == 1
        assert len({peer.state.roster for peer in outcome.honest if peer.state}) == 1
        for peer in outcome.honest:
            assert audit_ledger(self.directory / f"peer-{peer.index}").problems == ()
        return outcome


def find_recoveries(outcome: Outcome) -> list[Recovered]:
    """Every recovery that an honest member came through."""
    return [event for peer in outcome.honest for event in peer.events if isinstance(event, Recovered)]


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
    """Five broadcasts per member and round, a closing COMMIT, and nothing else."""
    watcher = Watcher(monkeypatch, tmp_path, 5)
    await watcher.run()
    broadcast = 5 * 4  # each of five says it to each of the four others
    assert watcher.frames[Phase.CONFIRM] == 3 * broadcast
    assert watcher.frames[Phase.COMMIT] == 4 * broadcast
    assert not {Kind.CHAIN, Kind.RESUME, Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE} & set(watcher.frames)


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


def read_departures(watcher: Watcher, index: int) -> list:
    """The departures in a peer's ledger."""
    peer = watcher.hostile.peers[index]
    with Ledger.create(watcher.directory / f"peer-{index}", watcher.hostile.config, peer) as ledger:
        return list(ledger.departures())


async def test_two_views_in_a_fallback_are_banned_with_both_as_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Members held different views of Z, so none of its views counts, and both convict it."""
    watcher = Watcher(monkeypatch, tmp_path, 7, z=ShowsTwoViews(), w=Mute())
    outcome = await watcher.run()
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
