"""
What a trainer tells its user, and the task that tells it.

The swarm calls its observer in the middle of a round. What takes long (evaluation, checkpoints) must
not stand in its way, so events wait here in order and are delivered by a task of their own.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import trio

from btard.identity import PeerId
from btard.net import Address
from btard.rules.draws import Assignment
from btard.swarm.events import (
    Departed,
    DisputeOpened,
    GradientDiffers,
    GradientOverflow,
    Halted,
    Joining,
    Recovered,
    RoundDone,
    RunStarted,
    Stranded,
)
from btard.swarm.joining.fetching_state import Progress as Transfer
from btard.swarm.state import State
from btard.training.solving import Solving
from btard.training.tasks import Evaluation


@dataclass(frozen=True)
class Ready:
    """This peer is on the network and has timed its gradient; now it looks for the others.

    ``addresses`` are those that it announces: none if it only dials out.
    """

    peer: PeerId
    addresses: tuple[Address, ...]
    gradient_ms: int


@dataclass(frozen=True)
class Continued:
    """A restarted peer goes on where it died: in this round, in this attempt."""

    round: int
    attempt: int
    roster: tuple[PeerId, ...]


@dataclass(frozen=True)
class Progress:
    """One finished round. ``state`` is the Merkle root of x; ``evaluation`` is there in some rounds only."""

    round: int
    attempts: int
    wall_s: float
    roster: tuple[PeerId, ...]
    assignments: tuple[Assignment, ...]
    state: bytes
    evaluation: Evaluation | None


TrainingEvent = (
    Ready
    | Continued
    | Progress
    | RunStarted
    | Departed
    | DisputeOpened
    | Halted
    | Recovered
    | GradientOverflow
    | Stranded
    | GradientDiffers
    | Joining
    | Solving
    | Transfer
)
TrainingObserver = Callable[[TrainingEvent], None]


def ignore_events(event: TrainingEvent) -> None:
    """The observer of nobody."""


@dataclass(frozen=True)
class Errand:
    """An event on its way; ``state`` is there if somebody attends to it first."""

    event: TrainingEvent
    state: State | None = None


Attend = Callable[[State], Awaitable[Evaluation | None]]


class Reporter:
    """Delivers events in order; ``attend`` evaluates and saves the states of rounds for which ``is_due``.

    At most one state waits to be attended to; what falls due meanwhile is reported without.
    """

    def __init__(self, attend: Attend, is_due: Callable[[int], bool], observe: TrainingObserver) -> None:
        self._attend, self._is_due, self._observe = attend, is_due, observe
        self._waiting: deque[Errand] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def tell(self, event: TrainingEvent) -> None:
        """Deliver an event after those before it."""
        self._add(Errand(event))

    def tell_round(self, done: RoundDone) -> None:
        """Deliver a finished round, attended to first where that is due."""
        is_free = all(errand.state is None for errand in self._waiting)
        state = done.result if is_free and self._is_due(done.round) else None
        self._add(Errand(_as_progress(done), state))

    def _add(self, errand: Errand) -> None:
        self._waiting.append(errand)
        self._changed.unpark_all()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            while self._waiting:
                event = await self._prepare(self._waiting[0])
                self._waiting.popleft()
                self._observe(event)
                self._changed.unpark_all()
            await self._changed.park()

    async def _prepare(self, errand: Errand) -> TrainingEvent:
        if errand.state is None or not isinstance(errand.event, Progress):
            return errand.event
        return replace(errand.event, evaluation=await self._attend(errand.state))

    async def finish(self) -> None:
        """Return once everything was delivered."""
        while self._waiting:
            await self._changed.park()

    def flush(self) -> None:
        """Deliver what is left at once, unattended: the run is over."""
        while self._waiting:
            self._observe(self._waiting.popleft().event)


def _as_progress(done: RoundDone) -> Progress:
    state = done.result.seal.state
    return Progress(done.round, done.attempts, done.wall_s, done.roster, done.assignments, state, None)
