"""Relays: every marked pair has one, marked with neither, and each hop is a pair of its own (attacks B1)."""

from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config, make_message, make_part, make_roster

from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Aggregate, Phase, Stage, Unrelayed
from btard.rules.relays import Errand, Relays
from btard.rules.validity import is_valid_aggregate

ROSTER = make_roster(7)
A, B, C, D, E, F, G = ROSTER.members
Q = b"q" * 32
PARTS = tuple(
    make_part(make_config(), index, peer, 8 * index, 8 * index + 8 * (peer != G))
    for index, peer in enumerate(ROSTER.members)
)


def test_only_marked_pairs_have_relays() -> None:
    """Everybody else exchanges directly."""
    relays = Relays(Q, ROSTER, Marks().with_pairs([make_pair(A, B)]))
    assert relays.between(A, C) is None
    assert relays.between(A, B) in ROSTER.without([A, B])
    assert relays.between(A, B) == relays.between(B, A)


def test_draws_choose_among_all_relays() -> None:
    """Which relay it is depends on the draw, so no Byzantine member is it every time."""
    marks = Marks().with_pairs([make_pair(A, B)])
    drawn = {Relays(bytes([number]) * 32, ROSTER, marks).between(A, B) for number in range(64)}
    assert drawn == {C, D, E, F, G}


@given(st.integers(3, 24), st.data())
def test_every_pair_has_a_relay_marked_with_neither(size: int, data: st.DataObject) -> None:
    """While nobody has more than f marked partners, somebody is unmarked with both members of any pair."""
    roster = make_roster(size)
    members = roster.members
    everyone = [make_pair(one, other) for one in members for other in members if one < other]
    marks = Marks()
    for pair in data.draw(st.lists(st.sampled_from(everyone))):
        if not marks.with_pairs([pair]).find_overmarked(roster, roster.tolerated()):
            marks = marks.with_pairs([pair])
    relays = Relays(Q, roster, marks)
    for one, other in marks.pairs:
        relay = relays.between(one, other)
        assert relay in roster.without([one, other])
        assert not marks.is_marked(relay, one)
        assert not marks.is_marked(relay, other)


def test_pair_without_a_relay_exchanges_directly() -> None:
    """Where one of the two is marked with everybody it leaves before anything is exchanged."""
    relays = Relays(Q, ROSTER, Marks().with_pairs([make_pair(A, peer) for peer in ROSTER.members if peer != A]))
    assert relays.between(A, B) is None


def test_errands_are_slices_to_aggregators_and_parts_to_everyone() -> None:
    """Nothing is passed on of an empty part, or of a member that contributes nothing."""
    relays = Relays(Q, ROSTER, Marks().with_pairs([make_pair(A, B), make_pair(C, G)]))
    first, second = relays.between(A, B), relays.between(C, G)
    assert relays.find_slice_errands(PARTS, ROSTER.without([B]).members) == (Errand(first, B, A), Errand(second, C, G))
    assert relays.find_part_errands(PARTS) == (Errand(first, A, B), Errand(first, B, A), Errand(second, G, C))


def test_members_confess_only_their_own_errands() -> None:
    """A failed errand that was not the sender's makes its AGGREGATE as good as missing; so do disorder and doubles."""
    errands = (Errand(C, A, B), Errand(C, D, B), Errand(E, A, F))

    def is_valid(*pairs: tuple[bytes, bytes]) -> bool:
        payload = Aggregate(b"r" * 32, 1.0, (), b"n" * 32, tuple(Unrelayed(*pair) for pair in pairs))
        message = make_message(C, Stage(3, 1, Phase.AGGREGATE), payload)
        return is_valid_aggregate(message, ROSTER.members, errands)

    assert is_valid()
    assert is_valid((A, B), (D, B))
    assert not is_valid((A, F))
    assert not is_valid((D, B), (A, B))
    assert not is_valid((A, B), (A, B))
