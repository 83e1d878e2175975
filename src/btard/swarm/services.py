"""What one round needs at hand: the concurrent protocols of this peer, and its bounds on waiting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from btard.identity import Context, Identity, PeerId, digest
from btard.rules.config import RunConfig
from btard.rules.evidence import AnyProof, Cause, Departure, DepartureKind
from btard.rules.messages import Aggregate, Phase, Slot
from btard.swarm.bound_data import BoundData
from btard.swarm.broadcast import Broadcast
from btard.swarm.compute import Compute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Observer
from btard.swarm.exchange import IN_FLIGHT, Exchange
from btard.swarm.gather import Parts
from btard.swarm.goodbye import Goodbye
from btard.swarm.joining.reception import Reception
from btard.swarm.ledger import Ledger
from btard.swarm.lending import PATIENCE
from btard.swarm.scatter import Slices
from btard.swarm.state import Work
from btard.swarm.updates import Updates
from btard.swarm.workload import Workload

WARM_UP_S = 30.0
"""Added to the deadline of the first COMMIT, in which links are still being made."""
COMPUTE_FACTOR = 10
"""The compute bound is this many times the slowest gradient promised at genesis."""


@dataclass(frozen=True)
class Deadlines:
    """How long the phases of a run may take, in seconds: compute bound, bulk bound, and a little over 4Δ for messages.

    Members enter a phase within 3Δ of each other, and IN_FLIGHT: a message, and another that is pulled (attacks A6).
    ``warm_up_s`` is waited for messages besides; for data only until we are missed.
    """

    compute_s: float
    bulk_s: float
    messages_s: float
    warm_up_s: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, gradient_ms: int) -> "Deadlines":
        """The deadlines that follow from the run's configuration and the genesis seal."""
        bulk_s = config.delay_s + 4 * config.elements / config.min_bandwidth
        return cls(COMPUTE_FACTOR * gradient_ms / 1000, bulk_s, (4 + IN_FLIGHT) * config.delay_s)

    def commit(self, round_number: int) -> float:
        """A gradient, and messages; the first round also connects."""
        return self.check + (WARM_UP_S if round_number == 1 else 0.0)

    def carrying(self, config: RunConfig, size: int) -> "Deadlines":
        """The deadlines where some member has ``size`` bytes to send, or to receive, if that is more than a vector."""
        return replace(self, bulk_s=max(self.bulk_s, config.delay_s + size / config.min_bandwidth))

    @property
    def patience_s(self) -> float:
        """After which a transfer is given up, lest slow readers make us keep every round."""
        return PATIENCE * self.bulk_s

    def after_restart(self) -> "Deadlines":
        """The deadlines while others may be restarting like us: nobody is called silent before they can be back."""
        return replace(self, warm_up_s=WARM_UP_S)

    @property
    def returning_s(self) -> float:
        """Data of members whose link was lost is waited for so much longer: 8Δ, for they may be restarting.

        2Δ for a start, and as long for links, which cheats may refuse; 4Δ in which cheats may keep it asking.
        """
        return 2 * self.messages_s

    @property
    def bulk(self) -> float:
        """A transfer of one vector and a computation on it, then messages: AGGREGATE, REVEAL, CHECK, PUBLISH.

        Whoever restarts in the middle of a transfer is waited for. Half once more: what does not come is asked for,
        which takes 2Δ longer than a transfer.
        """
        return 2 * self.bulk_s + self.compute_s + 1.5 * self.messages_s + self.returning_s + self.warm_up_s

    @property
    def check(self) -> float:
        """A pass over the vector, then messages: CONFIRM."""
        return self.compute_s + self.messages_s + self.warm_up_s

    @property
    def gradient(self) -> float:
        """A transfer, a gradient that is computed again, then messages: VOTE."""
        return self.bulk + self.compute_s


@dataclass(frozen=True)
class Services:
    """The protocols of one peer, each a task or served by one, as the round uses them."""

    config: RunConfig
    identity: Identity
    workload: Workload
    conduct: Conduct
    compute: Compute
    ledger: Ledger
    broadcast: Broadcast
    exchange: Exchange
    slices: Slices
    parts: Parts
    deadlines: Deadlines
    updates: Updates
    bound: BoundData
    reception: Reception
    observe: Observer
    spawn: Callable[..., None]
    goodbye: Goodbye = field(default_factory=Goodbye)

    @property
    def me(self) -> PeerId:
        """Our own id."""
        return self.identity.peer_id

    @property
    def nonce_secret(self) -> bytes:
        """What our nonces of this run are derived from: a key that takes part in two runs repeats none of them."""
        return digest(Context.NONCE_SECRET, self.identity.seed, self.config.run_id)

    def is_leaving(self, work: Work) -> bool:
        """Whether we say goodbye in the COMMIT of this round, or have said it in the one before."""
        return self.goodbye.is_due(work.round) or self.me in work.leavers

    def carrying(self, size: int) -> "Services":
        """These services while some member has so many bytes to send or to receive."""
        return replace(self, deadlines=self.deadlines.carrying(self.config, size))

    def slot(self, work: Work, phase: Phase) -> Slot:
        """Our slot of a phase of the current attempt."""
        return Slot(work.stage(phase), self.me)

    def has_said(self, work: Work, phase: Phase, serial: int = 0) -> bool:
        """Whether we said a phase of this attempt before a restart: nothing that we wait for changes what we said."""
        return self.broadcast.find_said(work.stage(phase, serial)) is not None

    def find_committed(self, work: Work) -> Aggregate | None:
        """What we committed to as an aggregator of this attempt before a restart, if we did."""
        said = self.broadcast.find_said(work.stage(Phase.AGGREGATE))
        return said if isinstance(said, Aggregate) else None

    def others(self, work: Work) -> tuple[PeerId, ...]:
        """The other members of the current attempt, those after us in the roster first: pulls spread over all."""
        members = work.roster.members
        mine = members.index(self.me)
        return members[mine + 1 :] + members[:mine]

    def record(
        self,
        work: Work,
        peer: PeerId,
        kind: DepartureKind,
        cause: Cause,
        proof: AnyProof | None,
        blobs: Mapping[bytes, memoryview] = MappingProxyType({}),
    ) -> None:
        """Write down why somebody leaves, before it takes effect."""
        departure = Departure(peer, work.round, work.attempt, kind, cause, proof)
        self.ledger.record_departure(departure, blobs)
        self.tell(departure)

    def tell(self, item: Departure) -> None:
        """Let whoever watches know of a departure that is written down."""
        self.observe(Departed(PeerId(item.peer), item.round, item.attempt, item.kind, item.cause))
