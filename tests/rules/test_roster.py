"""Rosters: order, majority, and how many cheats they bear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_peers, make_roster

from btard.rules.roster import Roster, compute_bans_digest

PEERS = make_peers(5)


@pytest.mark.parametrize(
    ("size", "majority", "tolerated"),
    [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (8, 5, 3), (15, 8, 7), (16, 9, 7), (64, 33, 31)],
)
def test_bounds_of_a_roster(size: int, majority: int, tolerated: int) -> None:
    """Majority is more than half; f is the largest number that is fewer than half (design, 3)."""
    roster = make_roster(size)
    assert (roster.majority, roster.tolerated()) == (majority, tolerated)


@given(st.integers(1, 200), st.none() | st.integers(0, 200))
def test_honest_members_are_always_a_majority(size: int, bound: int | None) -> None:
    """Whatever the run allows, the members beyond f are enough to decide."""
    roster = make_roster(size)
    tolerated = roster.tolerated(bound)
    assert len(roster) - tolerated >= roster.majority
    assert tolerated <= (size if bound is None else bound)


@given(st.permutations(PEERS))
def test_roster_does_not_depend_on_the_order_of_arrival(peers: list) -> None:
    """All members derive the same roster and the same digest."""
    roster = Roster.of([*peers, peers[0]])
    assert roster == Roster(PEERS)
    assert roster.digest == Roster(PEERS).digest


@pytest.mark.parametrize("members", [PEERS[::-1], (*PEERS, PEERS[4])], ids=["unsorted", "twice"])
def test_unsorted_or_repeated_members_are_our_own_mistake(members: tuple) -> None:
    """A roster that is not in order is never built."""
    with pytest.raises(ValueError, match="sorted"):
        Roster(members)


def test_rosters_differ_in_their_digest() -> None:
    """One member more or less is another roster; an empty one is different again."""
    rosters = [Roster(PEERS[:count]) for count in range(6)]
    assert len({roster.digest for roster in rosters}) == 6


def test_without_drops_members_and_nothing_else() -> None:
    """Departures keep the order; strangers do not matter."""
    roster = Roster(PEERS[:4])
    assert roster.without([PEERS[1], PEERS[4]]).members == (PEERS[0], PEERS[2], PEERS[3])
    assert PEERS[1] in roster
    assert PEERS[4] not in roster
    assert roster.without([]) == roster


def test_bans_digest_is_of_a_set() -> None:
    """The order of bans does not matter, their number does."""
    assert compute_bans_digest(PEERS[:3]) == compute_bans_digest(PEERS[2::-1])
    assert compute_bans_digest(PEERS[:3]) != compute_bans_digest(PEERS[:2])


@pytest.mark.parametrize(
    ("size", "wanted", "bound", "count"),
    [(8, 1, None, 1), (8, 4, None, 1), (7, 2, None, 1), (16, 4, 3, 4), (16, 9, 4, 7), (3, 2, 0, 2), (8, 0, None, 0)],
)
def test_validators_leave_honest_contributors_a_majority(size: int, wanted: int, bound: int | None, count: int) -> None:
    """A round has at most max(1, n-2f-1) validators, whatever the run asks for (attacks C6)."""
    roster = make_roster(size)
    assert roster.count_validators(wanted, bound) == count
