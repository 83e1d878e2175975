"""A member that was cut off is told how it left by the seal of the round in which it waits, and by nothing less."""

from collections import Counter
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.watched_swarm import Mute, W, Watcher, Z

from btard.attacks import Equivocate
from btard.errors import Banned, BtardError, Removed
from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import Cause, CertificateProof, DepartureKind
from btard.rules.messages import Phase, Position, Resume, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature
from btard.sim import Outcome
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone, Stranded
from btard.swarm.frames import Kind
from btard.swarm.halting import SealedRound
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, encode, sign_seal

Clock = trio.testing.MockClock
HOP_S = 0.25
LOST = 3
"""Who is cut off after round 2."""
AGE_S = 0.1
"""From the end of round 2 until the cut: what is said at once still leaves."""


class CutOff:
    """Five peers, one of whom hears and is heard by nobody for a while; afterwards only seals can tell it anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, conduct: Conduct | None = None) -> None:
        config = {"genesis_size": 5, "rounds": 20, "validators": 0}
        conducts = {} if conduct is None else {LOST: conduct}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        self.hostile.swarm.network.delivery = self.deliver
        self.lost, self.directory = self.hostile.peers[LOST], directory
        self.cut_at: float | None = None
        self.seals_told = 0

    def watch(self, index: int, event: Event) -> None:
        """Let nobody answer questions about standing, and cut after round 2."""
        if isinstance(event, RoundDone):
            self.hostile.hubs[self.hostile.peers[index]].serve.pop(Kind.STANDING, None)
        if index == LOST and isinstance(event, RoundDone) and event.round == 2 and self.cut_at is None:
            self.cut_at = trio.current_time() + AGE_S

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Lose what crosses the cut, and every certificate for who was cut off."""
        is_across = self.lost in (sender, receiver)
        is_cut = self.cut_at is not None and self.cut_at <= trio.current_time() < self.cut_at + 25.0
        is_certificate = message.payload is None and message.kind == Kind.CERTIFICATE and receiver == self.lost
        self.seals_told += message.payload is None and message.kind == Kind.SEAL and receiver == self.lost
        return None if (is_across and is_cut) or is_certificate else HOP_S

    async def run(self) -> tuple[Outcome, BtardError | None]:
        """Run to the end: the others finish with one state; return how the one that was cut off ended."""
        outcome = await self.hostile.run()
        others = [peer for peer in outcome.peers if peer.index != LOST]
        assert [peer.error for peer in others] == [None] * 4
        assert len({peer.rounds[-1].result.seal.state for peer in others}) == 1
        assert all(audit_ledger(self.directory / f"peer-{peer.index}").problems == () for peer in outcome.peers)
        ending = outcome.peers[LOST].error
        assert isinstance(ending, BtardError | None)
        return outcome, ending


async def test_who_was_silent_while_it_was_cut_off_learns_that_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Its RESUME is answered with the next seal, which is without it and signed by more than half."""
    swarm = CutOff(monkeypatch, tmp_path)
    outcome, ending = await swarm.run()
    assert any(isinstance(event, Stranded) for event in outcome.peers[LOST].events)
    assert outcome.departures(DepartureKind.REMOVAL)[LOST].cause is Cause.SILENCE
    assert isinstance(ending, Removed)
    assert str(ending) == "the roster went on without this peer, without blame, while it was cut off"
    assert 0 < swarm.seals_told <= 4


async def test_who_was_convicted_while_it_was_cut_off_learns_that_it_is_banned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It said two things to two halves before the cut; there is no certificate of its ban, and the seal names it."""
    swarm = CutOff(monkeypatch, tmp_path, Equivocate(3, phase=Phase.COMMIT))
    outcome, ending = await swarm.run()
    assert outcome.departures(DepartureKind.BAN)[LOST].cause is Cause.EQUIVOCATION
    with Ledger.create(tmp_path / "peer-0", swarm.hostile.config, swarm.hostile.peers[0]) as ledger:
        assert not any(isinstance(item.proof, CertificateProof) for item in ledger.departures())
    assert isinstance(ending, Banned)
    assert str(ending) == "the roster convicted this peer while it was cut off; the seals of the others tell why"
    assert swarm.seals_told > 0


async def test_a_seal_that_too_few_signed_tells_nobody_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Two of five sign a next seal without an honest member, again and again under other names: it stays."""
    cheats, victim = (1, 3), 2

    def forge(seal: Seal) -> bytes:
        roster = tuple(peer for peer in seal.roster if peer != hostile.peers[victim])
        other = replace(seal, round=seal.round + 1, previous=compute_seal_digest(seal), roster=roster)
        mine = [SealSignature(hostile.peers[index], sign_seal(hostile.identities[index], other)) for index in cheats]
        borrowed = [SealSignature(hostile.peers[index], mine[0].signature) for index in (0, 2, 4)]
        return encode(SealedRound(other, (*mine, *mine, *borrowed)))

    def watch(index: int, event: Event) -> None:
        if index == victim and isinstance(event, RoundDone):
            told.append(event.round)
            body = forge(event.result.seal)
            for cheat in cheats:
                hostile.hubs[hostile.peers[cheat]].send(hostile.peers[victim], Kind.SEAL, body)

    told: list[int] = []
    conducts = {index: Conduct() for index in cheats}
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 5}, conducts=conducts, watch=watch)
    hostile.swarm.network.delivery = lambda sender, receiver, message: 0.1
    outcome = await hostile.run()
    assert told == [1, 2, 3]
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert len(outcome.state_roots) == 1


async def test_resumes_of_a_past_attempt_are_answered_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A member says a hundred RESUMEs of the attempt before at once: each of the others answers once, if at all."""
    watcher = Watcher(monkeypatch, tmp_path, 5, z=Conduct(), w=Mute())
    hostile, answers = watcher.hostile, Counter[PeerId]()
    deliver, watch_first = watcher.deliver, hostile.swarm._watch

    def count(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        is_answer = message.payload is None and message.kind in {Kind.CERTIFICATE, Kind.SEAL}
        answers[sender] += is_answer and is_flooded and receiver == hostile.peers[Z]
        return deliver(sender, receiver, message)

    def flood(index: int, event: Event) -> None:
        nonlocal is_flooded
        watch_first(index, event)
        if index == 0 and isinstance(event, RoundDone) and event.round == 2:
            is_flooded = True
            content = Resume(Position(2, 0, int(Phase.REVEAL), 0), ())
            for serial in range(100):
                resume = hostile.sign(Z, Roster.of(hostile.peers).digest, Stage(0, 0, Phase.RESUME, serial), content)
                for peer in event.roster:
                    if peer != hostile.peers[Z]:
                        hostile.hubs[hostile.peers[Z]].send(peer, Kind.RESUME, resume)

    is_flooded = False
    hostile.swarm.network.delivery, hostile.swarm._watch = count, flood
    outcome = await watcher.run()
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {W}
    assert is_flooded
    assert 0 < sum(answers.values()) <= 2 * len(outcome.honest)
    assert max(answers.values()) <= 2, "one certificate and one seal"
