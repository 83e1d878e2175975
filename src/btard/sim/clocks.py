"""
Clocks that disagree: each simulated peer reads and sets its timers by a clock of its own.

trio has one clock for all tasks. While a simulation runs, its functions that tell or take a time ask
whose task calls: a peer whose clock is skewed reads ``offset + rate * t`` and waits for a ``rate``-th of
what it asked. The network and the checkers keep the true time, and so does ``deadline`` of a cancel scope: a peer
that changes how long a scope lasts sets its ``relative_deadline``.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from btard.sim.power import RUNNING


@dataclass(frozen=True)
class SkewedClock:
    """A clock that shows ``offset + rate * t`` at the true time ``t``."""

    rate: float = 1.0
    offset: float = 0.0

    def read(self, true_s: float) -> float:
        """Return what it shows."""
        return self.offset + self.rate * true_s

    def find_true(self, shown_s: float) -> float:
        """Return the true time at which it shows this."""
        return (shown_s - self.offset) / self.rate


def true_time() -> float:
    """Return the virtual time that all peers' clocks only approach, in seconds."""
    return trio.lowlevel.current_clock().current_time()


TIMED = ("current_time", "sleep", "sleep_until", "move_on_after", "move_on_at", "fail_after")
"""What of trio tells or takes a time and is used by peers."""

LASTING = "relative_deadline"
"""The property of a cancel scope that takes a time by the clock of whose task sets it."""


class Clocks:
    """trio's timed functions as the peer whose task calls sees them; who has no clock here keeps the true time."""

    def __init__(self, clocks: Mapping[int, SkewedClock]) -> None:
        self._clocks, self._exact = clocks, SkewedClock()
        self.originals = {name: getattr(trio, name) for name in TIMED}
        self.original_lasting: Any = vars(trio.CancelScope)[LASTING]
        self.lasting = property(self._get_lasting, self._set_lasting)

    @property
    def _ours(self) -> SkewedClock:
        return self._clocks.get(RUNNING.get(-1), self._exact)

    def current_time(self) -> float:
        """See ``trio.current_time``."""
        return self._ours.read(true_time())

    async def sleep(self, seconds: float) -> None:
        """See ``trio.sleep``."""
        if seconds <= 0:
            await self.originals["sleep"](seconds)
        else:
            await self.originals["sleep_until"](true_time() + seconds / self._ours.rate)

    async def sleep_until(self, deadline: float) -> None:
        """See ``trio.sleep_until``."""
        await self.originals["sleep_until"](self._ours.find_true(deadline))

    def move_on_after(self, seconds: float) -> trio.CancelScope:
        """See ``trio.move_on_after``."""
        scope: trio.CancelScope = self.originals["move_on_after"](seconds / self._ours.rate)
        return scope

    def move_on_at(self, deadline: float) -> trio.CancelScope:
        """See ``trio.move_on_at``."""
        scope: trio.CancelScope = self.originals["move_on_at"](self._ours.find_true(deadline))
        return scope

    def fail_after(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """See ``trio.fail_after``."""
        scope: AbstractContextManager[trio.CancelScope] = self.originals["fail_after"](seconds / self._ours.rate)
        return scope

    def _get_lasting(self, scope: trio.CancelScope) -> float:
        """See ``trio.CancelScope.relative_deadline``."""
        return float(self.original_lasting.fget(scope) * self._ours.rate)

    def _set_lasting(self, scope: trio.CancelScope, seconds: float) -> None:
        self.original_lasting.fset(scope, seconds / self._ours.rate)


@contextmanager
def skewed(clocks: Mapping[int, SkewedClock]) -> Iterator[None]:
    """Give the peers these clocks until the end of the context; without any nothing changes."""
    own = Clocks(clocks)
    for name in TIMED if clocks else ():
        setattr(trio, name, getattr(own, name))
    if clocks:
        setattr(trio.CancelScope, LASTING, own.lasting)
    try:
        yield
    finally:
        for name, original in own.originals.items():
            setattr(trio, name, original)
        setattr(trio.CancelScope, LASTING, own.original_lasting)
