"""
The one seam between the event loop and heavy work: gradients, clipping, hashing.

A worker thread costs 0.1 ms a hop and breaks virtual time, so the simulator runs the same work inline.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class Compute(Protocol):
    """Runs a function of values to its result without stopping the peer's other tasks."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``."""


class ThreadCompute:
    """Runs work in worker threads, one at a time unless told otherwise: a peer is given one core."""

    def __init__(self, places: int = 1) -> None:
        self._limiter = trio.CapacityLimiter(places)

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``, run in a thread."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


class InlineCompute:
    """Runs work at once, in the caller's task; virtual time does not pass meanwhile."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()`` after a checkpoint."""
        await trio.lowlevel.checkpoint()
        return work()
