"""Quorums of seals (design, sections 3 and 5)."""

import pytest
from tests.rules.build import make_peers, make_roster

from btard.rules.seal import has_quorum


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (8, 5), (16, 9)])
def test_more_than_half_of_the_roster_makes_a_quorum(size: int, needed: int) -> None:
    """Exactly half is too few; one more is enough."""
    peers = make_peers(size)
    assert has_quorum(frozenset(peers[:needed]), make_roster(size))
    assert not has_quorum(frozenset(peers[: needed - 1]), make_roster(size))


def test_signatures_of_strangers_do_not_count() -> None:
    """Any number of keys outside the roster is no quorum."""
    peers = make_peers(20)
    assert not has_quorum(frozenset(peers[4:]) | {peers[0], peers[1]}, make_roster(4))
