"""Work in the background: its priority, its errors, and what a cancellation does to it."""

import os
import sys
import threading

import pytest
import trio

from btard.swarm.compute import LOWEST_PRIORITY, BackgroundCompute


def read_priority() -> int:
    """Return the niceness of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own elsewhere")
async def test_work_in_the_background_gives_way_and_the_event_loop_does_not():
    """Only the thread of its own has the lowest priority."""
    before = read_priority()
    assert await BackgroundCompute().run(read_priority) == LOWEST_PRIORITY
    assert read_priority() == before


async def test_an_error_of_the_work_is_raised_where_it_was_asked_for():
    """The caller sees what went wrong, and the thread takes the next piece."""
    compute = BackgroundCompute()
    with pytest.raises(ZeroDivisionError):
        await compute.run(lambda: 1 // 0)
    assert await compute.run(lambda: 7) == 7


async def test_a_cancellation_waits_for_the_work_under_way():
    """No work is left running behind the caller's back."""
    ended, begun = [], threading.Event()

    def work() -> None:
        begun.set()
        ended.append(sum(range(100_000)))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(BackgroundCompute().run, work)
            await trio.to_thread.run_sync(begun.wait)
            scope.cancel()
    assert ended
