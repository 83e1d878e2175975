# ruff: noqa: SLF001  trio has no public switch for what this file does
"""
The one place that makes trio repeat itself: equal seeds give equal schedules, in every process.

Trio shuffles each batch of runnable tasks. Its own switch for deterministic tests sorts a batch by the
age of the tasks first and shuffles with a generator that can be seeded; we turn that switch, seed the
generator, and put both back afterwards. Time is virtual and jumps whenever everybody waits. What is
left to chance is nothing: the simulator uses no thread, no socket and no file that it waits for.
"""

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeVar

import trio
import trio.testing
from trio._core import _run as scheduler

from btard.sim.chance import open_stream

T = TypeVar("T")


def run_deterministically(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """Run ``main`` on a virtual clock that starts at 0, with the schedule that belongs to ``seed``.

    Only one run at a time in a process: the switch is trio's, and global. The caller's context variables are not seen.
    """
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.setstate(open_stream(seed, "schedule").getstate())
    clock = trio.testing.MockClock(autojump_threshold=0)
    # Virtual time moves by jumps only, so there is no need to look at the real time whenever somebody asks.
    clock.current_time = lambda: clock._virtual_base  # type: ignore[method-assign]
    try:
        return Context().run(lambda: trio.run(main, clock=clock))
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[0]  # type: ignore[misc]
        scheduler._r.setstate(before[1])
