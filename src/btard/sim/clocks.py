"""
Clocks that disagree: each simulated peer reads and sets its timers by a clock of its own.

trio has one clock for all tasks. While a simulation runs, its functions that tell or take a time ask
whose task calls: a peer whose clock is skewed reads ``offset + rate * t`` and waits for a ``rate``-th of
what it asked. The network and the checkers keep the true time.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

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


@contextmanager
def skewed(clocks: Mapping[int, SkewedClock]) -> Iterator[None]:
    """Give the peers these clocks until the end of the context; who has none keeps the true time."""
    exact = SkewedClock()

    def ours() -> SkewedClock:
        return clocks.get(RUNNING.get(-1), exact)

    def current_time() -> float:
        return ours().read(true_time())

    async def sleep(seconds: float) -> None:
        if seconds <= 0:
            await originals["sleep"](seconds)
        else:
            await originals["sleep_until"](true_time() + seconds / ours().rate)

    async def sleep_until(deadline: float) -> None:
        await originals["sleep_until"](ours().find_true(deadline))

    def move_on_after(seconds: float) -> trio.CancelScope:
        scope: trio.CancelScope = originals["move_on_after"](seconds / ours().rate)
        return scope

    def move_on_at(deadline: float) -> trio.CancelScope:
        scope: trio.CancelScope = originals["move_on_at"](ours().find_true(deadline))
        return scope

    def fail_after(seconds: float) -> AbstractContextManager[trio.CancelScope]:
        scope: AbstractContextManager[trio.CancelScope] = originals["fail_after"](seconds / ours().rate)
        return scope

    ticking = (current_time, sleep, sleep_until, move_on_after, move_on_at, fail_after)
    originals = {function.__name__: getattr(trio, function.__name__) for function in ticking}
    for function in ticking if clocks else ():
        setattr(trio, function.__name__, function)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(trio, name, original)
