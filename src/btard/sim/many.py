"""Many seeds, on all cores: one process per core plays one scenario after another."""

import gc
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from btard.sim.drawing import Order

LONGEST_S = 600
"""Seconds of a core that one run may use; 24 peers and 50 rounds with every fault take some 60."""


@contextmanager
def limited_time() -> Iterator[None]:
    """Let no run use more than LONGEST_S of a core: a loop that waits for nothing would never end.

    Raises:
        TimeoutError: it did.
    """

    def give_up(*_: object) -> None:
        raise TimeoutError(f"more than {LONGEST_S} s of a core; it may wait for nothing for ever")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        gc.collect()


def play_seed(order: Order, seed: int) -> dict[str, Any]:
    """Play one scenario in this process and return its report as JSON has it; a bug of ours is a violation too."""
    import logging

    import structlog

    from btard.sim.play import play_in_memory

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    scenario = order.draw(seed)
    try:
        with limited_time():
            return play_in_memory(scenario).as_json()
    except Exception as error:  # noqa: BLE001  the campaign must name the seed, whatever broke
        broken = {"invariant": "simulator", "round": 0, "detail": f"{type(error).__name__}: {error}"}
        empty = {"bans": [], "removals": [], "acts": {}, "rounds_done": 0}
        return {"seed": seed, "scenario": scenario.as_json(), "violations": [broken], **empty}


def play_seeds(
    order: Order, seeds: Sequence[int], jobs: int, *, keeps_going: bool, is_alone: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the result of each seed as it ends; after a violation no new one begins, unless told to keep going.

    With ``is_alone`` each is played in a new process, which hashes its own way.
    """
    context, waiting, running = (
        multiprocessing.get_context("spawn"),
        list(reversed(seeds)),
        set[Future[dict[str, Any]]](),
    )
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1 if is_alone else None) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.add(pool.submit(play_seed, order, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if result["violations"] and not keeps_going:
                    waiting.clear()
                yield result
