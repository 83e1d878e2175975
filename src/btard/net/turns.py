"""A lock or a semaphore that is free is taken without giving up one's turn: that costs more than what it guards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def hold(lock: trio.Lock | trio.Semaphore) -> AsyncIterator[None]:
    """Hold ``lock`` within; a checkpoint only where it has to be waited for."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
