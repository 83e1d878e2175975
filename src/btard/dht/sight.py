"""
Do we still see the swarm? Compares the nodes we know from one refresh to the next.

Whether half of the nodes left or a cable broke looks the same from here; but either way the user
should hear of it, and both sides should look for each other sooner than usual.
"""

from enum import Enum, auto

MIN_NODES = 3
"""Fewer coming or going are everyday life."""
LOOKS_MISSED = 10
"""Nodes count as missing for so many looks, about six minutes; then they have left."""
LOOKS_AT_FIRST = 6
"""Growth during so many looks, about the first half minute, is a swarm that starts."""


class View(Enum):
    """What a look found."""

    USUAL = auto()
    LOST = auto()
    """As many nodes are missing as are left."""
    BACK = auto()
    """Half of those are there again."""
    MET = auto()
    """As many strangers have come as we knew."""


class Sight:
    """Looks at the ids of the known nodes; ``missing`` are those that went out of sight not long ago."""

    def __init__(self) -> None:
        self.missing: dict[bytes, int] = {}
        self._present: frozenset[bytes] = frozenset()
        self._lost: frozenset[bytes] = frozenset()
        self._looks = 0

    def look(self, present: frozenset[bytes]) -> View:
        """Return how ``present`` differs from what was seen before."""
        before, self._present = self._present, present
        strangers = present - before - self.missing.keys()
        gone = dict.fromkeys(before - present, LOOKS_MISSED)
        waiting = {node: looks - 1 for node, looks in self.missing.items() if looks > 1 and node not in present}
        self.missing = waiting | gone
        self._looks += 1
        if self._lost:
            return self._look_for_lost()
        if len(self.missing) >= max(MIN_NODES, len(present)) and present:
            self._lost = frozenset(self.missing)
            return View.LOST
        has_grown = len(strangers) >= max(MIN_NODES, len(before))
        return View.MET if has_grown and self._looks > LOOKS_AT_FIRST else View.USUAL

    def _look_for_lost(self) -> View:
        if 2 * len(self._lost & self._present) >= len(self._lost):
            self._lost = frozenset()
            return View.BACK
        if not self._lost & self.missing.keys():
            self._lost = frozenset()
        return View.USUAL
