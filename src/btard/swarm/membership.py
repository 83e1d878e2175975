"""Who takes part in a run, with what, and where it keeps what it must not forget."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.swarm.compute import Compute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Observer
from btard.swarm.goodbye import Goodbye
from btard.swarm.joining.application import Application
from btard.swarm.restoring import NoSnapshots, Snapshots
from btard.swarm.workload import Workload


@dataclass(frozen=True)
class Membership:
    """How a peer takes part in a run: who it is, what it trains, and where it keeps its ledger.

    ``snapshots`` are what a restart replays from; ``disk`` runs writes beside ``compute``, ``aside`` what is
    worked out about candidates; ``reach_founder`` returns once there is a link to the founder, by default from
    where the directory says it is. With an ``application`` we join a run that has begun.
    """

    identity: Identity
    config: RunConfig
    workload: Workload
    data_dir: Path
    conduct: Conduct
    compute: Compute
    observe: Observer
    gradient_ms: int
    goodbye: Goodbye = field(default_factory=Goodbye)
    snapshots: Snapshots = field(default_factory=NoSnapshots)
    disk: Compute | None = None
    reach_founder: Callable[[], Awaitable[None]] | None = None
    aside: Compute | None = None
    application: Application | None = None

    @property
    def is_founder(self) -> bool:
        """Whether we sign seal 0."""
        return self.identity.peer_id == self.config.founder_id
