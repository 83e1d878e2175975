"""Marked pairs: honest members keep their places, whoever fails many loses its own (attacks B1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_roster

from btard.rules.marks import Marks, make_pair, sort_pairs

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members


def test_marks_are_of_pairs_not_of_sides() -> None:
    """Whoever is named first, the pair is the same; nobody else is marked by it."""
    marks = Marks().with_pairs([make_pair(A, B)])
    assert marks.is_marked(A, B)
    assert marks.is_marked(B, A)
    assert not marks.is_marked(A, C)
    assert not marks.is_marked(A, A)
    assert marks.with_pairs([make_pair(B, A)]) == marks


def test_nobody_is_marked_with_itself() -> None:
    """A pair has two members."""
    with pytest.raises(ValueError, match="itself"):
        make_pair(A, A)


def test_partners_are_counted_in_the_roster_of_the_moment() -> None:
    """Whoever has left counts against nobody any more."""
    marks = Marks().with_pairs([make_pair(A, peer) for peer in (D, B, C)])
    assert marks.find_overmarked(ROSTER, 2) == (A,)
    smaller = ROSTER.without([B])
    assert marks.find_overmarked(smaller, 2) == ()
    assert marks.find_overmarked(smaller, 1) == (A,)
    assert marks.within(smaller) == Marks().with_pairs([make_pair(A, C), make_pair(A, D)])


def test_more_than_f_marked_partners_remove() -> None:
    """With f = 2 the third mark removes, and only whoever all three have in common."""
    marks = Marks().with_pairs([make_pair(A, B), make_pair(A, C)])
    assert marks.find_overmarked(ROSTER, 2) == ()
    assert marks.with_pairs([make_pair(D, A)]).find_overmarked(ROSTER, 2) == (A,)


def test_pairs_are_stored_in_one_order() -> None:
    """The order is that of the members, lower first."""
    assert sort_pairs([make_pair(C, B), make_pair(E, A)]) == ((A, E), (B, C))


@given(st.integers(2, 24), st.data())
def test_honest_members_are_never_overmarked(size: int, data: st.DataObject) -> None:
    """However f Byzantine members share out their marks, no honest one has too many (attacks B1)."""
    roster = make_roster(size)
    tolerated = roster.tolerated()
    cheats, honest = roster.members[:tolerated], roster.members[tolerated:]
    possible = [make_pair(cheat, peer) for cheat in cheats for peer in roster.members if peer != cheat]
    chosen = data.draw(st.sets(st.sampled_from(possible))) if possible else set()
    marks = Marks().with_pairs(chosen)
    assert not set(marks.find_overmarked(roster, tolerated)) & set(honest)
