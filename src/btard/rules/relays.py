"""
Relays: who passes on what the two members of a marked pair have for each other (attacks B1).

A relay is marked with neither of the two, so each of the two hops is a pair of which either side may
still complain; a hop that fails marks its own pair, and the next attempt draws another relay. Two
members with at most f marked partners each always have one: together they are marked with at most
2f-2 of the n-2 others, and 2f < n.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from btard.identity import Context, PeerId, digest
from btard.rules.marks import Marks, sort_pairs
from btard.rules.parts import Part
from btard.rules.roster import Roster


class Errand(NamedTuple):
    """``relay`` passes on to ``recipient`` what ``owner`` has for it."""

    relay: PeerId
    recipient: PeerId
    owner: PeerId


@dataclass(frozen=True)
class Relays:
    """The relays of an attempt, drawn from the round's q for its roster and marks."""

    q: bytes
    roster: Roster
    marks: Marks

    def between(self, one: PeerId, other: PeerId) -> PeerId | None:
        """Return the relay of a marked pair, None for any other, whose members exchange directly.

        None also where everybody is marked with one of the two: it has too many marks, and leaves before
        anything is exchanged.
        """
        if not self.marks.is_marked(one, other):
            return None
        free = [
            peer
            for peer in self.roster.members
            if peer not in (one, other)
            and not self.marks.is_marked(peer, one)
            and not self.marks.is_marked(peer, other)
        ]
        low, high = sorted((one, other))
        return min(free, key=lambda peer: digest(Context.RELAYS, self.q, low, high, peer), default=None)

    def find_slice_errands(self, parts: Collection[Part], contributors: Collection[PeerId]) -> tuple[Errand, ...]:
        """Return whose slices go to whom by relays: contributors' to aggregators of parts that are not empty."""
        errands = self._find_errands()
        return tuple(item for item in errands if item.owner in contributors and _reduces(item.recipient, parts))

    def find_part_errands(self, parts: Collection[Part]) -> tuple[Errand, ...]:
        """Return whose aggregates go to whom by relays: those of parts that are not empty, to everyone."""
        return tuple(item for item in self._find_errands() if _reduces(item.owner, parts))

    def _find_errands(self) -> Iterator[Errand]:
        """Yield what both members of every marked pair may have for each other."""
        for low, high in sort_pairs(self.marks.within(self.roster).pairs):
            if relay := self.between(low, high):
                yield Errand(relay, low, high)
                yield Errand(relay, high, low)


def _reduces(peer: PeerId, parts: Collection[Part]) -> bool:
    """Whether one of the parts that are not empty is this member's."""
    return any(part.aggregator == peer and part.elements for part in parts)
