"""Aggregates on their way to the disk, where a round is run again before the first one of it is there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trio

from btard.swarm.compute import InlineCompute
from btard.swarm.ledger import SMALL_BLOB
from btard.swarm.updates import Updates

ROUND, WRITE_S = 5, 1.0


class SlowDisk(InlineCompute):
    """Writes one file after another, each in so much virtual time."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return ``work()``."""
        async with self._turn:
            await trio.sleep(WRITE_S)
            return await super().run(work)


@pytest.mark.parametrize("waits_at", [0.0, 1.5])
async def test_the_aggregate_of_the_last_attempt_is_waited_for(
    waits_at: float, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The end of the void one's write is neither the end of the wait nor an error, nor is a wait for it in vain."""
    ledger: Any = SimpleNamespace(record_update=lambda *_, **_options: None, find_update=lambda _number: (True, None))
    updates = Updates(tmp_path, ledger, SlowDisk())
    ended: list[float] = []

    async def wait() -> None:
        await updates.written(ROUND)
        ended.append(trio.current_time() - begun)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = begun + 5 * WRITE_S
        for value in (0.0, 1.0):
            write = updates.keep(ROUND, torch.full((SMALL_BLOB,), value), is_applied=True)
            assert write is not None
            nursery.start_soon(write)
            if value == 0.0:
                nursery.start_soon(wait)  # from the attempt that is over
            await trio.sleep(WRITE_S / 4)
        await trio.sleep(waits_at)
        await wait()
    assert ended == [pytest.approx(WRITE_S), pytest.approx(2 * WRITE_S)]
    written = updates.load(ROUND, SMALL_BLOB)
    assert written is not None and written.aggregate[0] == 1.0
