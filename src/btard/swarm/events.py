"""What a peer tells whoever watches it: progress for people, JSON logs, and the demo's table."""

from collections.abc import Callable
from dataclasses import dataclass

from btard.identity import PeerId
from btard.rules.draws import Assignment
from btard.rules.evidence import Cause, DepartureKind
from btard.swarm.state import State


@dataclass(frozen=True)
class RunStarted:
    """The genesis seal is known; round 1 begins."""

    roster: tuple[PeerId, ...]


@dataclass(frozen=True)
class Resumed:
    """A restarted peer is back where it died: ``round`` begins again in this attempt, from this state."""

    round: int
    attempt: int
    roster: tuple[PeerId, ...]
    state: State


@dataclass(frozen=True)
class GradientDiffers:
    """After a restart our gradient is not the one that we had committed to; ``is_restored`` if others gave it back."""

    round: int
    is_restored: bool


@dataclass(frozen=True)
class RoundDone:
    """A round's update is applied; provisional until the next COMMITs agree."""

    round: int
    attempts: int
    wall_s: float
    roster: tuple[PeerId, ...]
    assignments: tuple[Assignment, ...]
    result: State


@dataclass(frozen=True)
class Departed:
    """Somebody left the roster; the ledger has the proof."""

    peer: PeerId
    round: int
    attempt: int
    kind: DepartureKind
    cause: Cause


@dataclass(frozen=True)
class DisputeOpened:
    """A dispute was opened by rule; everyone votes."""

    kind: str
    round: int
    accused: PeerId
    accuser: PeerId | None


@dataclass(frozen=True)
class Halted:
    """A phase did not complete in time, or there is evidence; the swarm recovers."""

    stage: str
    missing: tuple[PeerId, ...]


@dataclass(frozen=True)
class Recovered:
    """A recovery ended after ``wall_s`` seconds, by a certificate or, ``is_fallback``, by Dolev–Strong."""

    round: int
    removed: tuple[PeerId, ...]
    banned: tuple[PeerId, ...]
    wall_s: float
    is_fallback: bool = False


@dataclass(frozen=True)
class Stranded:
    """A recovery decided nothing: too few members were heard, or too few would be left. The swarm waits for more."""

    round: int
    serial: int
    reason: str


@dataclass(frozen=True)
class GradientOverflow:
    """Our own gradient is not finite or beyond 1e30; ``in_a_row`` counts such rounds."""

    round: int
    in_a_row: int


@dataclass(frozen=True)
class Admitted:
    """We are on probation since this round."""

    round: int


@dataclass(frozen=True)
class Sampled:
    """As a candidate we have worked in a round; ``worked`` of ``needed`` rounds counted before it."""

    round: int
    worked: int
    needed: int


@dataclass(frozen=True)
class Promoted:
    """Probation is over: we are a member from this round on."""

    round: int


Joining = Admitted | Sampled | Promoted
"""What happens to a stranger on its way into the roster."""

Event = (
    RunStarted
    | Resumed
    | RoundDone
    | Departed
    | DisputeOpened
    | Halted
    | Recovered
    | Stranded
    | GradientOverflow
    | GradientDiffers
    | Joining
)
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer of nobody."""
