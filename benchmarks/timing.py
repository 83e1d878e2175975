"""Short calls in turns on one thread, by CPU time: what another program does meanwhile falls on all of them alike."""

import time
from collections.abc import Callable, Mapping

from benchmarks.report import compute_median

Call = Callable[[], object]
TURN_S = 0.002
"""About how long one side's turn lasts."""


def time_calls(call: Call, count: int = 1) -> float:
    """Return the CPU seconds of so many calls."""
    begun = time.thread_time()
    for _ in range(count):
        call()
    return time.thread_time() - begun


def take_turns(sides: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Return the CPU microseconds of a call of each side, once for every repeat; a turn lasts about TURN_S."""
    counts = {name: max(1, round(TURN_S * 10 / max(time_calls(call, 10), 1e-9))) for name, call in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            times[name].append(1e6 * time_calls(call, counts[name]) / counts[name])
    return times


def take_medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each side."""
    return {name: round(compute_median(values), 3) for name, values in times.items()}
