"""Two cheats of five that call recoveries, lie in views and spoil ballots, and an honest member that is not at hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm

from btard.attacks.equivocation import alter
from btard.identity import PeerId
from btard.net import Message
from btard.rules.messages import Ballot, Halt, Holding, Phase, SignedMessage, Stage, View
from btard.sim import Outcome
from btard.sim.power import RUNNING
from btard.swarm.broadcast import Broadcast
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import encode, prove_equivocation, sign_message

P, A, Q, B, ABSENT = range(5)
"""P, Q and the absent one are honest."""
LONGEST_S = 600.0


class Keeps(Conduct):
    """Keeps a slice from one member."""

    deprived: PeerId | None = None

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Whether a member is sent its slice."""
        return recipient != self.deprived


class SlowCompute(InlineCompute):
    """One member takes virtual time to compute, if it is told to."""

    takes_time = True
    slow = -1
    takes_s = 0.0

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return ``work()``."""
        if RUNNING.get() == SlowCompute.slow:
            await trio.sleep(SlowCompute.takes_s)
        return await super().run(work)


class Conspiracy:
    """A swarm in which the two cheats do as a script says once A has said its word of ``begins``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, begins: Stage) -> None:
        monkeypatch.setattr("btard.sim.swarm.InlineCompute", SlowCompute)
        self.slow_down(-1, 0.0)
        config = {"genesis_size": 5, "validators": 0, "rounds": 3}
        self.cheat = Keeps()
        conducts: dict[int, Conduct] = {A: self.cheat, B: Conduct()}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        self.hostile.swarm.network.delivery = self.deliver
        self.begins, self.has_begun = begins, trio.Event()
        self.words: list[Stage] = []
        self.is_cut, self.spoils_ballots = False, False
        self.show: Callable[[View], View] = lambda view: view
        self.broadcasts: dict[int, Broadcast] = {}
        self._say = Broadcast.say
        monkeypatch.setattr(Broadcast, "say", self._make_say())

    def slow_down(self, index: int, takes_s: float) -> None:
        """Have a member take so long from here on for whatever it computes."""
        SlowCompute.slow, SlowCompute.takes_s = index, takes_s

    def watch(self, index: int, event: Event) -> None:
        """Nobody pulls what A keeps."""
        if index == A and isinstance(event, RunStarted | Resumed):
            del self.hostile.hubs[self.hostile.peers[A]].serve[Kind.PULL_STAGE]

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Lose what the absent one says, and what it is told, while it is cut off."""
        return None if self.is_cut and self.hostile.peers[ABSENT] in (sender, receiver) else 0.0

    def _make_say(self) -> Any:
        def say(broadcast: Broadcast, stage: Stage, roster: bytes, previous: bytes, payload: Any) -> SignedMessage:
            index = self.hostile.peers.index(broadcast.me)
            self.broadcasts[index] = broadcast
            if index in (A, B) and isinstance(payload, View):
                payload = self.show(payload)
            if index in (A, B) and isinstance(payload, Ballot) and self.spoils_ballots:
                payload = Ballot(payload.silent, bytes([index]) * 32)
            if index == ABSENT:
                self.words.append(stage)
            message = self._say(broadcast, stage, roster, previous, payload)
            if index == A and stage == self.begins:
                self.has_begun.set()
            return message

        return say

    def halt(self, *missing: int, proof: bytes = b"") -> SignedMessage:
        """Have A call for a recovery."""
        broadcast = self.broadcasts[A]
        place, names = broadcast.place, tuple(self.hostile.peers[index] for index in missing)
        said = Halt(make_position(self.begins), names, (proof,) if proof else ())
        return broadcast.say(Stage(0, place.attempt, Phase.HALT, place.serial), place.roster.digest, b"", said)

    def prove(self) -> bytes:
        """Two words of B for one slot."""
        first = self.broadcasts[A].board.of(self.begins)[self.hostile.peers[B]]
        identity, run_id = self.hostile.identities[B], self.hostile.config.run_id
        second = sign_message(identity, run_id, first.roster, self.begins, first.previous, alter(first.payload))
        return encode(prove_equivocation(first, second))

    def mend(self) -> None:
        """Let the absent one be heard again, by new links."""
        self.is_cut = False
        for peer in self.hostile.peers[:ABSENT]:
            self.hostile.swarm.network.break_links(peer, self.hostile.peers[ABSENT])

    async def run(self, script: Callable[[], Any]) -> Outcome:
        """Run to the end, with what the cheats do."""

        async def act() -> None:
            await self.has_begun.wait()
            await script()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            with trio.fail_after(LONGEST_S):
                outcome = await self.hostile.run()
            nursery.cancel_scope.cancel()
        return outcome


def claim(stage: Stage) -> Callable[[View], View]:
    """Show oneself elsewhere."""
    return lambda view: replace(
        view, position=make_position(stage), holdings=(Holding(make_position(stage), view.holdings[-1].digests),)
    )
