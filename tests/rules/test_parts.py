"""Parts: every element has one aggregator, also after members have left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config, make_peers, make_roster

from btard.rules.draws import compute_part_order
from btard.rules.parts import cut_parts, find_part_of

Q = b"q" * 32


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 12), st.sets(st.integers(0, 11), max_size=8))
def test_parts_cover_the_vector_once_in_the_drawn_order(
    elements: int, chunk: int, members: int, gone: set[int]
) -> None:
    """Contiguous, in order, one for each member that remains, none above twice its share (attacks C5)."""
    config = make_config(elements=elements, chunk_size=chunk)
    roster = make_roster(members)
    remaining = roster.without([peer for index, peer in enumerate(roster.members) if index in gone])
    if not len(remaining):
        return
    parts = cut_parts(config, Q, roster, remaining)
    assert [part.aggregator for part in parts] == list(compute_part_order(Q, roster, remaining))
    assert [part.index for part in parts] == list(range(len(remaining)))
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(elements))
    assert [n for part in parts for n in part.chunks] == list(range(-(-elements // chunk)))
    assert all(len(part.chunks) <= max(1, -(-2 * -(-elements // chunk) // len(parts))) for part in parts)


def test_radii_scale_with_the_length_of_the_part() -> None:
    """A roster that shrinks makes parts longer, and clips each element as before (attacks B4d)."""
    config = make_config(tau=2.0, delta=6.0)
    for members in (1, 4, 16):
        roster = make_roster(members)
        for part in cut_parts(config, Q, roster, roster):
            assert part.tau**2 / part.elements == pytest.approx(2.0**2 / config.chunk_size)
            assert part.delta**2 / part.elements == pytest.approx(6.0**2 / config.chunk_size)


def test_more_members_than_chunks_leave_some_parts_empty() -> None:
    """Small vectors do not fail."""
    roster = make_roster(5)
    parts = cut_parts(make_config(elements=8), Q, roster, roster)
    assert sorted(part.elements for part in parts) == [0, 0, 0, 4, 4]


def test_part_of_an_aggregator_is_found() -> None:
    """Each aggregator has its one part."""
    roster = make_roster(4)
    parts = cut_parts(make_config(), Q, roster, roster)
    assert all(find_part_of(parts, part.aggregator) is part for part in parts)
    with pytest.raises(StopIteration):
        find_part_of(parts, make_peers(9)[8])
