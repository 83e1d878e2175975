"""How often something may happen for each of many: a burst at once, then one after another. Seconds of one clock."""

from collections import OrderedDict
from collections.abc import Hashable

MAX_REMEMBERED = 4096
"""Keys remembered at once; the one counted longest ago is forgotten first."""

ROUNDING_S = 1e-6
"""Shorter waits are none, so that whoever slept as long as it was told is in time."""


class Pace:
    """At most ``burst`` events of one key at once, and ``per_s`` a second on average."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_s, self._slack_s = 1 / per_s, (burst - 1) / per_s
        self._booked: OrderedDict[Hashable, float] = OrderedDict()

    def find_wait(self, key: Hashable, now: float) -> float:
        """Return the seconds until the next event of ``key`` is in time; 0 if it is now."""
        wait_s = self._booked.get(key, now) - self._slack_s - now
        return wait_s if wait_s > ROUNDING_S else 0.0

    def count(self, key: Hashable, now: float) -> None:
        """Count an event."""
        self._booked[key] = max(self._booked.pop(key, now), now) + self._interval_s
        if len(self._booked) > MAX_REMEMBERED:
            self._booked.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Let the next events of ``key`` be its first."""
        self._booked.pop(key, None)
