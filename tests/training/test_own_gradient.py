"""The watch over our own gradient."""

import pytest
import torch
import trio

from btard.errors import ConfigError
from btard.swarm.state import Gradient, commit_to
from btard.training.own_gradient import PATIENCE_ROUNDS, WatchedConduct


def gradient(*, overflow: bool) -> Gradient:
    """A gradient, flagged or not."""
    return commit_to(torch.zeros(4), 2, overflow=overflow)


async def commit(conduct: WatchedConduct, number: int, *, overflow: bool) -> Gradient:
    """Commit as the round does, in a worker thread."""
    return await trio.to_thread.run_sync(lambda: conduct.commitment(number, gradient(overflow=overflow), 2))


async def test_each_overflow_is_told_with_its_count():
    """Overflows are counted in a row; a finite gradient begins anew, and is committed as it is."""
    told = []
    conduct = WatchedConduct(told.append)
    for number, overflow in enumerate([True, True, False, True], 1):
        committed = await commit(conduct, number, overflow=overflow)
        assert committed.overflow is overflow
    assert [(event.round, event.in_a_row) for event in told] == [(1, 1), (2, 2), (4, 1)]


async def test_ten_in_a_row_end_the_training():
    """The tenth in a row is an error that says what to do; nine are not."""
    told = []
    conduct = WatchedConduct(told.append)
    for number in range(1, PATIENCE_ROUNDS):
        await commit(conduct, number, overflow=True)
    with pytest.raises(ConfigError, match="lower the learning rate"):
        await commit(conduct, PATIENCE_ROUNDS, overflow=True)
    assert told[-1].in_a_row == 10
