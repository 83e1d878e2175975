"""
Peers that stand still: not one of their tasks takes a step, whatever arrives and whatever timer is due.

As with a process that is stopped and continued, the world goes on: messages pile up, deadlines pass.
When the peer goes on, all that came meanwhile is there at once, timers and messages alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio._core import _run as scheduler

from btard.sim.power import RUNNING


class Freezer:
    """Keeps the tasks of frozen peers aside when they become ready, and lets them run in that order later."""

    def __init__(self) -> None:
        self._held: dict[int, list[trio.lowlevel.Task]] = {}

    async def freeze(self, index: int, lasts_s: float) -> None:
        """Let a peer stand still for this long, in virtual seconds; return when it goes on."""
        if index in self._held:
            return
        self._held[index] = []
        try:
            await trio.sleep(lasts_s)
        finally:
            scheduler.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._held.pop(index))

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Stand between trio and its queue of ready tasks until the end of the context."""
        original = scheduler.Runner.reschedule

        def reschedule(runner: scheduler.Runner, task: trio.lowlevel.Task, *outcome: Any) -> None:
            original(runner, task, *outcome)
            held = self._held.get(task.context.get(RUNNING, -1))
            if held is not None:
                held.append(runner.runq.pop())

        scheduler.Runner.reschedule = reschedule  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            scheduler.Runner.reschedule = original  # type: ignore[method-assign]
