"""A member that dies in the midst of a recovery takes part in the rest or learns how it ended; nobody blames it."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, SignedMessage, Slot, Stage
from btard.sim import Outcome
from btard.sim.power import PowerLoss
from btard.swarm.audit import audit_ledger
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.wire import open_message

Clock = trio.testing.MockClock
Z, P, W = 1, 2, 3
"""Z shows its views late to some, P dies, W is silent and so brings recoveries about."""
BACK_S = 1.5
SAID = [Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE]


class Mute(Conduct):
    """Says nothing from a phase of round 2 on."""

    def says(self, stage: Stage) -> bool:
        return stage.round == 1 or (stage.round == 2 and stage.phase < Phase.REVEAL)


class DyingSwarm:
    """A swarm that needs a recovery in round 2, by a certificate or by the fallback, in which members die."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, *, is_fallback: bool) -> None:
        size = 7 if is_fallback else 5
        config = {"genesis_size": size, "validators": 0, "rounds": 4}
        conducts: dict[int, Conduct] = {W: Mute(), **({Z: Conduct()} if is_fallback else {})}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        self.directory, self.is_fallback = directory, is_fallback
        self.versions = defaultdict[Slot, set[bytes]](set)
        self.dying, self.moment = (P,), ""
        self.hostile.swarm.network.delivery = self.deliver
        honest = [peer for index, peer in enumerate(self.hostile.peers) if index not in (Z, W)]
        self.late = {peer: 1.9 if place % 2 else 2.1 for place, peer in enumerate(honest)} if is_fallback else {}
        self.late[self.hostile.peers[W]] = 2.1  # which serves what it holds
        self._say = Broadcast.say
        monkeypatch.setattr(Broadcast, "say", self.make_say())

    def kill(self) -> None:
        """Let those who are to die lose their power, once."""
        self.moment = ""
        for place, index in enumerate(self.dying):
            self.hostile.swarm.crash(index, BACK_S + place / 4)

    def watch(self, index: int, event: Event) -> None:
        """Die when a recovery is over, here or at the first of the others; nobody pulls from Z what it shows late."""
        if index == Z and isinstance(event, RunStarted | Resumed) and self.is_fallback:
            del self.hostile.hubs[self.hostile.peers[Z]].serve[Kind.PULL_STAGE]
        if isinstance(event, Recovered) and self.moment == ("recovered" if index == P else "settled elsewhere"):
            self.kill()
        elif isinstance(event, Recovered) and index == P and self.moment == "gone on":
            self.moment = "next word"

    def make_say(self) -> Any:
        """Die before or after P signs something."""

        def say(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
            is_dying = broadcast.me == self.hostile.peers[P]
            if is_dying and self.moment == f"before {stage.phase.name}":
                self.kill()
                raise PowerLoss
            message = self._say(broadcast, stage, *args)
            if is_dying and self.moment in (f"after {stage.phase.name}", "next word"):
                self.kill()
                raise PowerLoss
            return message

        return say

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        """Note all versions of all messages; Z shows its views when some have voted already."""
        if sender == self.hostile.peers[P] and message.kind == Kind.CHAIN and self.moment == "chain":
            self.kill()
        if message.payload is None and message.kind == Kind.MESSAGE:
            opened = open_message(self.hostile.config.run_id, bytes(message.head))
            if opened.slot.stage.phase is not Phase.HELLO:
                self.versions[opened.slot].add(opened.digest)
            if opened.slot.stage.phase is Phase.VIEW and sender == self.hostile.peers[Z]:
                return self.late.get(receiver, 0.0)
        return 0.0

    async def run(self, moment: str) -> Outcome:
        """Run to the end; all but W must finish as one, with nothing signed twice and nobody else gone."""
        self.moment = moment
        outcome = await self.hostile.run()
        assert self.moment == ""
        assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
        assert len(outcome.state_roots) == 1
        assert set(outcome.departures(DepartureKind.REMOVAL)) == {W}
        assert outcome.departures(DepartureKind.BAN) == {}
        assert [slot for slot, versions in self.versions.items() if len(versions) > 1] == []
        for peer in outcome.honest:
            assert {done.round for done in peer.rounds} == {1, 2, 3, 4}
            assert audit_ledger(self.directory / f"peer-{peer.index}").problems == ()
        found = [event.is_fallback for peer in outcome.honest for event in peer.events if isinstance(event, Recovered)]
        if self.dying == (P,):  # else nobody may have voted yet, and all find the same views when they are back
            assert set(found) == {self.is_fallback}
        return outcome


MOMENTS = [f"{when} {phase.name}" for phase in SAID for when in ("before", "after")]
MOMENTS += ["chain", "recovered", "settled elsewhere", "gone on"]
OF_FALLBACK = ("before CONCLUDE", "after CONCLUDE", "chain")


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment not in OF_FALLBACK])
async def test_a_crash_in_a_recovery_with_a_certificate(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Whatever step it was in, P is back in its place, and only the silent member leaves."""
    outcome = await DyingSwarm(monkeypatch, tmp_path, is_fallback=False).run(moment)
    assert outcome.peers[P].restarts == 1


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_crash_in_a_fallback(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """The same where no certificate forms: what P missed of Dolev–Strong it is told."""
    outcome = await DyingSwarm(monkeypatch, tmp_path, is_fallback=True).run(moment)
    assert outcome.peers[P].restarts == 1


@pytest.mark.parametrize("is_fallback", [False, True])
@pytest.mark.parametrize("moment", ["after VIEW", "after BALLOT", "recovered", "gone on"])
async def test_a_power_cut_for_all_in_a_recovery(
    moment: str, is_fallback: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """All honest members die at once: what some had settled holds for all, and what none had is settled anew."""
    swarm = DyingSwarm(monkeypatch, tmp_path, is_fallback=is_fallback)
    swarm.dying = tuple(index for index in range(len(swarm.hostile.peers)) if index != W)
    outcome = await swarm.run(moment)
    assert all(peer.restarts == 1 for peer in outcome.honest)
