"""
The one seam between the event loop and heavy work: gradients, clipping, hashing.

A worker thread costs 0.1 ms a hop and breaks virtual time, so the simulator runs the same work inline.
"""

import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar, cast

import trio

T = TypeVar("T")

LOWEST_PRIORITY = 19


class Compute(Protocol):
    """Runs a function of values to its result without stopping the peer's other tasks; most kinds take time for it."""

    takes_time: bool

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``."""


class ThreadCompute:
    """Runs work in worker threads, one at a time unless told otherwise: a peer is given one core."""

    takes_time = True

    def __init__(self, places: int = 1) -> None:
        self._limiter = trio.CapacityLimiter(places)

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``, run in a thread."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


class BackgroundCompute:
    """Runs work in one thread of its own that gives way to all others of the machine, on systems that can (Linux)."""

    takes_time = True

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "btard-background", initializer=_give_way)

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``, run in the thread; a cancellation waits for its end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        is_done, token = trio.Event(), trio.lowlevel.current_trio_token()
        future = self._executor.submit(work)
        future.add_done_callback(lambda _: token.run_sync_soon(is_done.set))
        with trio.CancelScope(shield=True):
            await is_done.wait()
        return future.result()


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


class AttendedCompute:
    """Runs the heavy work of a round, which is given up once it is settled that the attempt is over."""

    takes_time = True

    def __init__(
        self, compute: Compute, attend: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]
    ) -> None:
        self._compute, self._attend = compute, attend

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``, or raise what ends the attempt; nothing is settled while no time passes."""
        if not self._compute.takes_time:
            return await self._compute.run(work)
        return cast("T", await self._attend(partial(self._compute.run, work)))


class InlineCompute:
    """Runs work at once, in the caller's task; virtual time does not pass meanwhile."""

    takes_time = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()`` after a checkpoint."""
        await trio.lowlevel.checkpoint()
        return work()
