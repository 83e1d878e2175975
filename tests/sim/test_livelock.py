"""A livelock is found though no virtual time passes, and nothing else is taken for one."""

from itertools import count

import pytest
import trio

from btard.sim.determinism import run_deterministically
from btard.sim.play import MOST_AT_ONCE, Livelock


@pytest.mark.parametrize(("pause_s", "is_found"), [(0.0, True), (0.25, False)])
def test_messages_without_end_are_found_where_time_stands_still(pause_s: float, is_found: bool) -> None:
    """A tenth of the limit arrives at every pass of the scheduler: too much at one instant, not so while time moves."""
    arrived, found = count(step=MOST_AT_ONCE // 10), list[bool]()

    async def main() -> None:
        trio.lowlevel.add_instrument(Livelock(lambda: next(arrived), lambda: found.append(True)))
        for _ in range(40):
            await trio.sleep(pause_s)

    run_deterministically(main, 0)
    assert bool(found) is is_found
