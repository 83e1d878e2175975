"""
Marked pairs: two members of whom one has failed the other, and nobody can tell which (attacks B1).

Honest members deliver to each other within Δ, so under synchrony every marked pair holds a Byzantine
member. An honest one therefore has at most f marked partners, and whoever has more is removed. A pair
is marked once, by agreed messages alone, and stays marked until one of the two leaves: nobody stops
the swarm for nothing more often than it has partners (design section 5).
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from btard.identity import Context, PeerId, digest
from btard.rules.roster import Roster

Pair = frozenset[PeerId]
"""Two members, in no order."""


def make_pair(one: PeerId, other: PeerId) -> Pair:
    """Return the pair of two different members."""
    if one == other:
        raise ValueError("nobody makes a pair with itself")
    return frozenset({one, other})


@dataclass(frozen=True)
class Marks:
    """The marked pairs of a run, the same at every honest peer."""

    pairs: frozenset[Pair] = frozenset()

    def with_pairs(self, pairs: Collection[Pair]) -> "Marks":
        """These marks and more."""
        return Marks(self.pairs | frozenset(pairs)) if pairs else self

    def within(self, roster: Roster) -> "Marks":
        """The marks that remain when only the members of ``roster`` do."""
        if not self.pairs:
            return self
        return Marks(frozenset(pair for pair in self.pairs if all(peer in roster for peer in pair)))

    def is_marked(self, one: PeerId, other: PeerId) -> bool:
        """Return whether the two are a marked pair."""
        return bool(self.pairs) and frozenset({one, other}) in self.pairs

    def find_overmarked(self, roster: Roster, tolerated: int) -> tuple[PeerId, ...]:
        """Return the members with more than f marked partners in the roster: none of them is honest."""
        partners = Counter(peer for pair in self.within(roster).pairs for peer in pair)
        return tuple(peer for peer in roster.members if partners[peer] > tolerated)


def compute_marks_digest(marks: Marks) -> bytes:
    """Return the digest by which members make sure that they mark the same pairs."""
    return digest(Context.MARKS, *(peer for pair in sort_pairs(marks.pairs) for peer in pair))


def sort_pairs(pairs: Collection[Pair]) -> tuple[tuple[PeerId, PeerId], ...]:
    """Return the pairs in one order, each with its lower member first, as they are stored and shown."""
    return tuple(sorted((min(pair), max(pair)) for pair in pairs))
