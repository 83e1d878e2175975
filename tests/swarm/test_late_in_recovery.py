"""Whoever is started again in a recovery of three is behind the others' clock: a cheat must not use it against them."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HasSaidMore, HostileSwarm
from tests.swarm.restarts import kill_after

from btard.identity import PeerId
from btard.net import Hub, Loan, Message
from btard.net.address import Address
from btard.net.memory import MemoryLink, MemoryTransport
from btard.rules.messages import AnyPayload, Ballot, Conclude, Halt, Phase, Position, SignedMessage, Stage
from btard.rules.recovery import compute_views_digest
from btard.rules.roster import Roster
from btard.sim import Outcome
from btard.swarm.board import Board
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, Resumed, RoundDone
from btard.swarm.frames import Kind
from btard.swarm.place import Place
from btard.swarm.recovery import Recovery
from btard.swarm.settlement import Settlement
from btard.wire import open_message

Clock = trio.testing.MockClock
Serve = Callable[[PeerId, bytes], Awaitable[tuple[bytes, Loan | None]]]
A, R, C = 0, 1, 2
"""A is honest and always there, R is killed, C cheats."""


class Mute(Conduct):
    """Says nothing by itself from REVEAL of round 2 on; what it signs is told by hand."""

    def says(self, stage: Stage) -> bool:
        return stage.round == 1 or (stage.round == 2 and stage.phase < Phase.REVEAL)


class SwarmOfThree:
    """A recovery in round 2, for C is silent there; ``said`` is all that was signed in it, by member and phase."""

    rounds = 4

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        config = {"genesis_size": 3, "min_roster": 2, "validators": 0, "rounds": self.rounds}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts={C: Mute()}, watch=self.watch)
        self.said = dict[tuple[int, Phase], SignedMessage]()
        self.is_back, self.boards = False, dict[int, Board]()
        self._say = Broadcast.say
        monkeypatch.setattr(Broadcast, "say", self.make_say())

    def make_say(self) -> Any:
        """Note what is said in the first recovery, and let C act on it."""

        def say(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
            message = self._say(broadcast, stage, *args)
            self.boards[self.hostile.peers.index(broadcast.me)] = broadcast.board
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


BACK_S, LINK_S, SLOW_S, HALT_S = 0.5, 1.99, 0.99, 0.6  # Δ is a second; the last is after R is back
TOLD = frozenset({Kind.MESSAGE, Kind.CERTIFICATE, Kind.CHAIN, Kind.RESUME})


class KeepsSilent(HasSaidMore):
    """Answers no question of a victim once that was killed, and casts no vote in the recovery of a serial."""

    def __init__(self, killed: list[float], victim: PeerId, serial: int) -> None:
        self.killed, self.victim, self.serial = killed, victim, serial

    def says(self, stage: Stage) -> bool:
        """Whether to say a message."""
        return stage.phase is not Phase.BALLOT or stage.serial != self.serial

    async def accompany(self, hub: Hub) -> None:
        """Stand before those who answer, once they are there."""
        while not {Kind.PULL_STAGE, Kind.PULL_SETTLED} <= set(hub.serve):
            await trio.sleep(0.0625)
        for kind in (Kind.PULL_STAGE, Kind.PULL_SETTLED):
            hub.serve[kind] = partial(self.serve, hub.serve[kind])
        await trio.sleep_forever()

    async def serve(self, answer: Serve, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        """Answer all others."""
        if self.killed and peer == self.victim:
            await trio.sleep_forever()
        return await answer(peer, body)


class LateLink(SwarmOfThree):
    """R hears A long after C, which halts with A meanwhile; ``entries``: when a recovery begins, and whether late."""

    dies_at, missed, serial = Phase.AGGREGATE, Position(3, 0, int(Phase.REVEAL), 0), 0
    link_s = LINK_S

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        super().__init__(monkeypatch, directory)
        self.entries = dict[tuple[int, int], tuple[float, bool]]()
        self.halts, self.is_telling = list[bytes](), False
        self.killed = kill_after(self.hostile.swarm, R, self.dies_at, 3, back_s=BACK_S)
        self.hostile.swarm.conducts[C] = KeepsSilent(self.killed, self.hostile.peers[R], self.serial)
        self.hostile.swarm.network.delivery = self.deliver
        connect, recover = MemoryTransport.connect, Recovery._recover

        async def connect_late(transport: MemoryTransport, address: Address, peer: PeerId | None) -> MemoryLink:
            if self.killed and {transport.peer_id, peer} == {self.hostile.peers[A], self.hostile.peers[R]}:
                await trio.sleep_until(self.killed[0] + BACK_S + self.link_s)
            return await connect(transport, address, peer)

        async def enter(recovery: Recovery, *, resumed: bool) -> Settlement | None:
            now, place = trio.current_time(), recovery._broadcast.place
            member = self.hostile.peers.index(recovery._broadcast.me)
            self.entries.setdefault((member, place.serial), (now, now < place.on_time_from))
            return await recover(recovery, resumed=resumed)

        monkeypatch.setattr(MemoryTransport, "connect", connect_late)
        monkeypatch.setattr(Recovery, "_recover", enter)

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """C is quick, but tells R nothing; A and R are as slow as they may be once R was killed."""
        cheat, victim = (self.hostile.peers[index] for index in (C, R))
        is_told = message.payload is None and message.kind in TOLD
        if self.killed and (sender, receiver) == (cheat, victim) and is_told and not self.is_telling:
            return None
        return SLOW_S if cheat not in {sender, receiver} and self.killed else 0.01

    def halt(self, serial: int) -> None:
        """Let C halt with A alone."""
        content = Halt(self.missed, (self.hostile.peers[A],), ())
        roster = Roster.of(self.hostile.peers).digest
        envelope = self.hostile.sign(C, roster, Stage(0, 0, Phase.HALT, serial), content)
        self.halts.append(envelope)
        self.hostile.tell(C, envelope, [A])
        self.boards[C].post(open_message(self.hostile.config.run_id, envelope))

    async def wait_and_halt(self, after_s: float) -> None:
        """Halt some time after R was killed."""
        while not self.killed:
            await trio.sleep(0.0625)
        await trio.sleep_until(self.killed[0] + after_s)
        self.halt(0)

    async def play(self, after_s: float) -> None:
        """Run for a minute."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.wait_and_halt, after_s)
            with trio.move_on_after(60.0):
                await self.hostile.run()
            nursery.cancel_scope.cancel()


class HaltsTwice(LateLink):
    """C halts again as soon as A has come through the first recovery; R says COMMIT, and knows of none."""

    dies_at, missed, serial = Phase.VOTE, Position(4, 0, int(Phase.COMMIT), 0), 1

    def watch(self, index: int, event: Event) -> None:
        super().watch(index, event)
        if index == R and isinstance(event, RoundDone) and event.round == 3 and not self.killed:
            self.killed.append(trio.current_time())
            self.hostile.swarm.crash(R, BACK_S)
        if index == A and isinstance(event, Recovered) and (A, 1) not in self.entries:
            self.halt(1)


class TellsAtLast(HaltsTwice):
    """C gives R the CONFIRMs that it lacks, before A can, and then one HALT after the other."""

    async def wait_and_halt(self, after_s: float) -> None:
        await super().wait_and_halt(after_s)
        confirms = self.boards[C].of(Stage(3, 0, Phase.CONFIRM)).values()
        await self.tell(BACK_S + 2.1, [message.envelope for message in confirms])
        await self.tell_halts()

    async def tell_halts(self) -> None:
        """Let R enter both recoveries."""
        await self.tell(BACK_S + 2.7, self.halts[:1])
        await self.tell(6.0, self.halts[1:])

    async def tell(self, after_s: float, envelopes: list[bytes]) -> None:
        """Tell R some messages."""
        await trio.sleep_until(self.killed[0] + after_s)
        self.is_telling = True
        for envelope in envelopes:
            self.hostile.tell(C, envelope, [R])
        await trio.sleep(0.015)
        self.is_telling = False


class SettledEarly(TellsAtLast):
    """A is quick when R is linked: R is in another round, and hears of the settlement, long before the second HALT."""

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        delay_s = super().deliver(sender, receiver, message)
        is_quick = self.killed and trio.current_time() < self.killed[0] + 3.5
        return 0.25 if delay_s == SLOW_S and is_quick else delay_s

    async def tell_halts(self) -> None:
        await self.tell(6.35, self.halts[1:])


@pytest.mark.parametrize(
    ("swarm_type", "after_s", "behind_s"),
    [(LateLink, BACK_S + HALT_S, 3.0), (HaltsTwice, 0.0, 3.0), (TellsAtLast, 0.0, 3.0), (SettledEarly, 0.0, 1.0)],
)
async def test_whoever_has_its_links_late_knows_that_it_is_late(
    swarm_type: type[LateLink],
    after_s: float,
    behind_s: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: Clock,
) -> None:
    """One cheat's answer is enough to go on, but not to run a fallback by a clock that began so long after A's."""
    swarm = swarm_type(monkeypatch, tmp_path)
    await swarm.play(after_s)
    (first_s, _), (late_s, is_late) = swarm.entries[A, swarm.serial], swarm.entries[R, swarm.serial]
    assert late_s > first_s + behind_s
    assert is_late


class HeardTogether(LateLink):
    """R is linked at once, and all come through the first recovery with its vote; the second begins 3Δ later."""

    rounds, serial, link_s = 16, -1, 0.0

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        return 0.05

    async def wait_and_halt(self, after_s: float) -> None:
        await super().wait_and_halt(after_s)
        await trio.sleep_until(self.killed[0] + BACK_S + 3.8)
        self.halt(1)


async def test_whoever_settled_with_all_others_knows_that_it_is_on_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Whoever is late concludes nothing, and with two of three a cheat could choose who hears of a conclusion."""
    swarm = HeardTogether(monkeypatch, tmp_path)
    await swarm.play(BACK_S + 1.0)
    assert swarm.entries[R, 0][1]
    (first_s, _), (late_s, is_late) = swarm.entries[A, 1], swarm.entries[R, 1]
    assert late_s < first_s + 0.1
    assert not is_late


def test_whoever_is_back_is_behind_until_it_hears_of_all() -> None:
    """Stages that are complete, and what is settled, may be long ago till then; Δ is two seconds here."""
    place = Place()
    place.come_back(10.0, 2.0)
    place.finish_stage(15.0, 2.0)
    place.take_up(20.0, 2.0)
    assert (place.is_behind, place.on_time_from) == (True, 26.0)
    place.finish_stage(21.0, 2.0)
    assert (place.is_behind, place.on_time_from) == (False, 26.0)
    place.take_up(26.0, 2.0)
    assert place.on_time_from == 26.0
