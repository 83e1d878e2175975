"""The vector is cut evenly, completely, and the same way by everyone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.robust import Layout, compute_chunk_size, compute_parts


@pytest.mark.parametrize(
    ("elements", "members", "size"),
    [(10**9, 16, 65_536), (8 * 16 * 65_536, 16, 65_536), (8 * 16 * 32_768, 16, 32_768), (100, 4, 2), (3, 8, 1)],
)
def test_chunk_size_is_the_largest_that_gives_eight_chunks_per_member(elements: int, members: int, size: int) -> None:
    """Big vectors take 65,536; smaller ones the largest power of two with eight chunks per member; tiny ones 1."""
    assert compute_chunk_size(elements, members) == size


@given(st.integers(1, 10**8), st.integers(1, 300))
def test_twice_the_chunk_size_would_be_too_large(elements: int, members: int) -> None:
    """The chunk size meets the rule and its double does not."""
    size = compute_chunk_size(elements, members)
    assert size == 1 or -(-elements // size) >= 8 * members
    assert size == 65_536 or -(-elements // (2 * size)) < 8 * members


@given(st.integers(0, 2000), st.integers(1, 100))
def test_parts_cover_all_chunks_once_in_balance(chunks: int, members: int) -> None:
    """Parts are contiguous, complete, within one chunk of each other and within the cap of design section 4."""
    parts = compute_parts(chunks, members)
    assert [chunk for part in parts for chunk in part] == list(range(chunks))
    sizes = [len(part) for part in parts]
    assert len(parts) == members
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(1, -(-2 * chunks // members))


@given(st.integers(1, 10_000), st.integers(1, 300), st.integers(1, 20))
def test_slices_of_the_parts_cover_the_vector(elements: int, chunk_size: int, members: int) -> None:
    """The element slices of all parts follow each other from the first element to the last."""
    layout = Layout(elements, chunk_size)
    slices = [layout.elements_of(part) for part in compute_parts(layout.chunks, members)]
    assert [where.start for where in slices] == [0, *(where.stop for where in slices[:-1])]
    assert slices[-1].stop == elements


def test_last_chunk_may_be_short() -> None:
    """Ten elements in chunks of four are three chunks, the last of two elements."""
    layout = Layout(10, 4)
    assert layout.chunks == 3
    assert layout.elements_of(range(2, 3)) == slice(8, 10)
    assert layout.elements_of(range(3, 3)) == slice(10, 10)


@pytest.mark.parametrize("chunks", [range(4), range(-1, 2), range(0, 3, 2), range(4, 4)])
def test_ranges_outside_the_vector_are_refused(chunks: range) -> None:
    """A range that skips chunks or leaves the vector raises ValueError."""
    with pytest.raises(ValueError, match="not a range of the 3 chunks"):
        Layout(10, 4).elements_of(chunks)


def test_impossible_sizes_are_refused() -> None:
    """No elements, no members, or a chunk size of zero raise ValueError."""
    for refused in (lambda: compute_chunk_size(0, 1), lambda: compute_parts(1, 0), lambda: Layout(1, 0)):
        with pytest.raises(ValueError, match=r"cannot|at least"):
            refused()
