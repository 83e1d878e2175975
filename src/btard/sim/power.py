"""
Crashes: a peer loses power in the midst of a write to its ledger, right after one, or at any await.

A peer that loses power in a write is cut off from the network first, then an exception that nobody
catches unwinds it: the transaction is rolled back, as it would be at the next start. Where its whole
machine loses power, nothing that the dying process does to its files counts: it restarts from the
database as it was when it was last synced, which SQLite does at each commit, but only with
``synchronous=FULL``.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import trio

from btard.sim.scenario import Crash, Moment
from btard.swarm.ledger_files import LEDGER_FILE, Step

RUNNING: ContextVar[int] = ContextVar("simulated peer")
"""The index of the peer to which the current task belongs; inherited by all tasks that a peer starts."""


FULL = 2
"""SQLite's ``synchronous`` from which on a commit waits for the disk."""


class PowerLoss(BaseException):
    """The peer is dead; whatever it was doing is not done."""


def is_durable(database: sqlite3.Connection) -> bool:
    """Whether a commit returns only when it is on the disk."""
    level: int = database.execute("PRAGMA synchronous").fetchone()[0]
    return level >= FULL


@dataclass
class _Armed:
    crash: Crash
    left: int


class PowerSupply(trio.abc.Instrument):
    """Counts down to crashes that are armed. ``cut`` disconnects a peer and cancels all its tasks.

    Of the peers in ``losers`` it knows what is synced: their machines may lose power.
    """

    def __init__(self, cut: Callable[[Crash], None], losers: Collection[int] = ()) -> None:
        self._disconnect = cut
        self._synced = dict.fromkeys(losers, b"")
        self._left: dict[int, bytes] = {}
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

    def _cut(self, crash: Crash) -> None:
        if crash.loses_power:
            self._left[crash.peer] = self._synced[crash.peer]
        self._disconnect(crash)

    def restore(self, index: int, directory: Path) -> None:
        """Be called before a peer restarts: of its database there is what was synced when its machine went dark."""
        if index in self._left:
            for file in directory.glob(f"{LEDGER_FILE}*"):
                file.unlink()
            (directory / LEDGER_FILE).write_bytes(self._left.pop(index))

    def before_commit(self) -> None:
        """Be called inside each transaction of a ledger."""
        armed = self._find_writer(Moment.WRITE)
        if armed is not None and self._count_down(armed):
            self._cut(armed.crash)
            raise PowerLoss

    def after_commit(self, database: sqlite3.Connection) -> None:
        """Be called after each transaction of a ledger, and after each step of one that is not committed yet."""
        index = RUNNING.get(-1)
        is_watched = index in self._synced and index not in self._left
        if is_watched and not database.in_transaction and is_durable(database):
            self._synced[index] = database.serialize()
        armed = self._find_writer(Moment.WRITTEN)
        if armed is not None and self._count_down(armed):
            self._cut(armed.crash)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Watch the steps of every ledger of this process until the end of the context."""
        original = Step.__exit__

        def watched(
            step: Step, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            if error is None:
                self.before_commit()
            original(step, kind, error, trace)
            if error is None:
                self.after_commit(step.database)

        Step.__exit__ = watched  # type: ignore[method-assign]
        try:
            yield
        finally:
            Step.__exit__ = original  # type: ignore[method-assign]
