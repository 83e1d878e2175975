# ruff: noqa: SLF001  the ledger has no public place in which to lose power
"""
Crashes: a peer loses power in the midst of a write to its ledger, right after one, or at any await.

A peer that loses power in a write is cut off from the network first, then an exception that nobody
catches unwinds it: the transaction is rolled back, as it would be at the next start.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import trio

from btard.sim.scenario import Crash, Moment
from btard.swarm.ledger import Ledger

RUNNING: ContextVar[int] = ContextVar("simulated peer")
"""The index of the peer to which the current task belongs; inherited by all tasks that a peer starts."""


class PowerLoss(BaseException):
    """The peer is dead; whatever it was doing is not done."""


@dataclass
class _Armed:
    crash: Crash
    left: int


class PowerSupply(trio.abc.Instrument):
    """Counts down to crashes that are armed. ``cut`` disconnects a peer and cancels all its tasks."""

    def __init__(self, cut: Callable[[Crash], None]) -> None:
        self._cut = cut
        self._armed: dict[int, _Armed] = {}
        self._is_watching = False

    def arm(self, crash: Crash) -> None:
        """Begin to count for a crash."""
        self._armed[crash.peer] = _Armed(crash, crash.count)
        if crash.moment is Moment.AWAIT and not self._is_watching:
            self._is_watching = True
            trio.lowlevel.add_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of armed peers."""
        armed = self._armed.get(task.context.get(RUNNING, -1))
        if armed is not None and armed.crash.moment is Moment.AWAIT and self._count_down(armed):
            self._is_watching = any(other.crash.moment is Moment.AWAIT for other in self._armed.values())
            if not self._is_watching:
                trio.lowlevel.remove_instrument(self)
            self._cut(armed.crash)

    def _count_down(self, armed: _Armed) -> bool:
        armed.left -= 1
        if armed.left == 0:
            del self._armed[armed.crash.peer]
        return armed.left == 0

    def _find_writer(self, moment: Moment) -> _Armed | None:
        armed = self._armed.get(RUNNING.get(-1))
        return armed if armed is not None and armed.crash.moment is moment else None

    def before_commit(self) -> None:
        """Be called inside each transaction of a ledger."""
        armed = self._find_writer(Moment.WRITE)
        if armed is not None and self._count_down(armed):
            self._cut(armed.crash)
            raise PowerLoss

    def after_commit(self) -> None:
        """Be called after each transaction of a ledger."""
        armed = self._find_writer(Moment.WRITTEN)
        if armed is not None and self._count_down(armed):
            self._cut(armed.crash)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Watch the writes of every ledger of this process until the end of the context."""
        original = Ledger._writing

        @contextmanager
        def watched(ledger: Ledger, **how: bool) -> Iterator[None]:
            with original(ledger, **how):
                yield
                self.before_commit()
            self.after_commit()

        Ledger._writing = watched  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Ledger._writing = original  # type: ignore[method-assign]
