"""Whoever is started again in a recovery of three is behind the others' clock: a cheat must not use it against them."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import kill_after

from btard.identity import PeerId
from btard.net import Message
from btard.rules.messages import AnyPayload, Ballot, Conclude, Phase, SignedMessage, Stage
from btard.rules.recovery import compute_views_digest
from btard.sim import Outcome
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed

Clock = trio.testing.MockClock
A, R, C = 0, 1, 2
"""A is honest and always there, R is killed, C cheats."""


class Mute(Conduct):
    """Says nothing by itself from REVEAL of round 2 on; what it signs is told by hand."""

    def says(self, stage: Stage) -> bool:
        return stage.round == 1 or (stage.round == 2 and stage.phase < Phase.REVEAL)


class SwarmOfThree:
    """A recovery in round 2, for C is silent there; ``said`` is all that was signed in it, by member and phase."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        config = {"genesis_size": 3, "min_roster": 2, "validators": 0, "rounds": 4}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts={C: Mute()}, watch=self.watch)
        self.said = dict[tuple[int, Phase], SignedMessage]()
        self.is_back = False
        self._say = Broadcast.say
        monkeypatch.setattr(Broadcast, "say", self.make_say())

    def make_say(self) -> Any:
        """Note what is said in the first recovery, and let C act on it."""

        def say(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
            message = self._say(broadcast, stage, *args)
            if stage.phase >= Phase.HALT and (stage.attempt, stage.serial) == (0, 0):
                self.said[self.hostile.peers.index(broadcast.me), stage.phase] = message
                self.act()
            return message

        return say

    def act(self) -> None:
        """What C does whenever somebody has signed something."""

    def sign(self, payload: AnyPayload, like: SignedMessage) -> bytes:
        """What C signs in the slot of the same phase as another member's message."""
        return self.hostile.sign(C, like.roster, like.slot.stage, payload)

    def watch(self, index: int, event: Event) -> None:
        """Let C know that R is back."""
        self.is_back |= index == R and isinstance(event, Resumed)

    async def run(self) -> Outcome:
        """Run to the end: A and R must finish as one."""
        outcome = await self.hostile.run()
        assert [(peer.error, peer.restarts) for peer in outcome.honest] == [(None, 0), (None, 1)]
        assert len(outcome.state_roots) == 1
        assert all({done.round for done in peer.rounds} == {1, 2, 3, 4} for peer in outcome.honest)
        return outcome


class TwoConclusions(SwarmOfThree):
    """C shows R alone its view and vote, and would conclude with A one thing and with R another."""

    def act(self) -> None:
        if (C, Phase.VIEW) in self.said and ((R, Phase.BALLOT) not in self.said or self.is_back):
            self.hostile.tell(C, self.said[C, Phase.VIEW].envelope, [R])
        if self.is_back:
            self.follow(R, Phase.BALLOT)
        if (A, Phase.CONCLUDE) in self.said and (R, Phase.CONCLUDE) in self.said:
            self.follow(A, Phase.CONCLUDE)
            self.follow(R, Phase.CONCLUDE)

    def follow(self, index: int, phase: Phase) -> None:
        """Tell a member alone what it has said itself."""
        message = self.said[index, phase]
        assert isinstance(message.payload, Ballot | Conclude)
        self.hostile.tell(C, self.sign(message.payload, message), [index])


async def test_whoever_comes_late_to_a_fallback_concludes_nothing_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """What comes to it in its first step comes to the others after their last: they would conclude otherwise."""
    swarm = TwoConclusions(monkeypatch, tmp_path)
    a, r = (swarm.hostile.peers[index] for index in (A, R))
    swarm.hostile.swarm.network.delivery = lambda sender, receiver, _: 0.0 if (sender, receiver) == (r, a) else 0.1
    killed = kill_after(swarm.hostile.swarm, R, Phase.BALLOT, 0, back_s=2.0)
    await swarm.run()
    assert killed
    assert (A, Phase.CONCLUDE) in swarm.said


class HastyVote(SwarmOfThree):
    """C votes to leave A out, to R alone, whose view of A is still on its way when it is back."""

    def act(self) -> None:
        if (C, Phase.VIEW) in self.said:
            self.hostile.tell(C, self.said[C, Phase.VIEW].envelope, [R])
        if self.is_back and (R, Phase.BALLOT) not in self.said:
            views = {self.hostile.peers[index]: self.said[index, Phase.VIEW] for index in (R, C)}
            ballot = Ballot((self.hostile.peers[A],), compute_views_digest(views))
            view = self.said[C, Phase.VIEW]
            stage = view.slot.stage._replace(phase=Phase.BALLOT)
            self.hostile.tell(C, self.hostile.sign(C, view.roster, stage, ballot), [R])


async def test_whoever_is_back_leaves_out_nobody_that_a_cheat_alone_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It waits for what it has asked for: more than half would have voted, and A would be removed."""
    swarm = HastyVote(monkeypatch, tmp_path)
    a, r = (swarm.hostile.peers[index] for index in (A, R))

    def delay(sender: PeerId, receiver: PeerId, _message: Message) -> float:
        return 0.9 if killed and (sender, receiver) == (a, r) else 0.05

    killed = kill_after(swarm.hostile.swarm, R, Phase.VIEW, 0, back_s=0.3)
    swarm.hostile.swarm.network.delivery = delay
    await swarm.run()
    assert killed
    voted = swarm.said[R, Phase.BALLOT].payload
    assert isinstance(voted, Ballot)
    assert a not in voted.silent
