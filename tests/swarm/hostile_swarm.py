"""A simulated swarm in which a test holds everybody's hub: what it sends through one, that peer has sent."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.evidence import EquivocationProof
from btard.rules.messages import AnyPayload, SignedMessage, Stage
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event
from btard.swarm.frames import Kind
from btard.swarm.workload import Workload
from btard.wire import open_message, prove_equivocation, sign_message

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 3}


class HasSaidMore(Conduct):
    """Signs beside its ledger, and goes on when others show it what it said."""

    def minds_own_words(self) -> bool:
        """Whether it stops when it meets words of its own that it does not know: no."""
        return False


class HostileSwarm:
    """Peers whose hubs are at hand; ``watch(index, event)`` is called for what every peer observes."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        directory: Path,
        config: Mapping[str, object],
        *,
        conducts: Mapping[int, Conduct] | None = None,
        watch: Callable[[int, Event], None] = lambda index, event: None,
        make_workload: Callable[[], Workload] = LinearTask,
        leave_after: Mapping[int, int] | None = None,
    ) -> None:
        self.hubs: dict[PeerId, Hub] = {}
        monkeypatch.setattr("btard.sim.swarm.Hub", self._make_hub)
        self.swarm = SimulatedSwarm(
            {**SETTINGS, **config}, make_workload, directory, conducts=conducts, watch=watch, leave_after=leave_after
        )
        self.identities, self.config = self.swarm.identities, self.swarm.config
        self.peers = [identity.peer_id for identity in self.identities]

    def _make_hub(self, transport: object, me: PeerId) -> Hub:
        self.hubs[me] = Hub(transport, me)  # type: ignore[arg-type]
        return self.hubs[me]

    async def run(self) -> Outcome:
        """Run all peers to their ends."""
        return await self.swarm.run()

    def sign(self, index: int, roster: bytes, stage: Stage, payload: AnyPayload, previous: bytes = b"") -> bytes:
        """Return a message signed by a peer, whatever its ledger says."""
        return sign_message(self.identities[index], self.config.run_id, roster, stage, previous, payload).envelope

    def prove(self, *envelopes: bytes) -> EquivocationProof:
        """Return the evidence that two messages are."""
        return prove_equivocation(*(open_message(self.config.run_id, envelope) for envelope in envelopes))

    def tell(self, index: int, envelope: bytes, recipients: list[int] | None = None) -> None:
        """Send a message from a peer's hub to some of the others, or to all of them."""
        for recipient, peer in enumerate(self.peers):
            if recipient != index and (recipients is None or recipient in recipients):
                self.hubs[self.peers[index]].send(peer, Kind.MESSAGE, envelope)

    def successors(self, index: int) -> list[int]:
        """The other members in the order in which a member asks them for data."""
        order = sorted(range(len(self.peers)), key=self.peers.__getitem__)
        place = order.index(index)
        return [*order[place + 1 :], *order[:place]]


def alter_said(
    monkeypatch: pytest.MonkeyPatch, hostile: HostileSwarm, change: Callable[[int, Stage, AnyPayload], AnyPayload]
) -> None:
    """Let peers sign what ``change(index, stage, payload)`` returns instead of what they should."""
    say = Broadcast.say

    def say_other(self: Broadcast, stage: Stage, roster: bytes, previous: bytes, payload: AnyPayload) -> SignedMessage:
        return say(self, stage, roster, previous, change(hostile.peers.index(self.me), stage, payload))

    monkeypatch.setattr(Broadcast, "say", say_other)
