"""
How the flat vector is cut: fixed chunks, and contiguous parts of chunks.

Chunks are the leaves of every commitment and never depend on the roster; parts are cut anew for
every attempt. Sizes are equal up to one chunk, so declared bandwidth cannot buy coordinates.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

MAX_CHUNK_SIZE = 65_536
CHUNKS_PER_MEMBER = 8


def compute_chunk_size(elements: int, genesis_size: int) -> int:
    """Return the largest power of two <= 65,536 that gives at least 8 chunks per genesis member (1 if none does).

    Raises:
        ValueError: there are no elements or no members.
    """
    if elements < 1 or genesis_size < 1:
        raise ValueError(f"cannot cut {elements} elements for {genesis_size} members; both must be at least 1")
    size = MAX_CHUNK_SIZE
    while size > 1 and -(-elements // size) < CHUNKS_PER_MEMBER * genesis_size:
        size //= 2
    return size


def compute_parts(chunks: int, members: int) -> tuple[range, ...]:
    """Return ``members`` contiguous ranges that cover all chunks once, in order.

    Sizes differ by at most one, so none exceeds max(1, ceil(2 * chunks / members)); with fewer
    chunks than members some parts are empty.

    Raises:
        ValueError: the number of chunks is negative or there are no members.
    """
    if chunks < 0 or members < 1:
        raise ValueError(f"cannot share {chunks} chunks among {members} members")
    cuts = [chunks * member // members for member in range(members + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(cuts))


@dataclass(frozen=True)
class Layout:
    """A flat vector of ``elements`` float32 values in chunks of ``chunk_size``; the last chunk may be short."""

    elements: int
    chunk_size: int

    def __post_init__(self) -> None:
        if self.elements < 1 or self.chunk_size < 1:
            raise ValueError(f"a layout needs elements and a chunk size of at least 1, not {self}")

    @cached_property
    def chunks(self) -> int:
        """The number of chunks, the short last one included."""
        return -(-self.elements // self.chunk_size)

    def elements_of(self, chunks: range) -> slice:
        """Return the slice of the flat vector that a contiguous range of chunks covers.

        Raises:
            ValueError: the range is not contiguous or leaves the vector.
        """
        start, stop = chunks.start, max(chunks.start, chunks.stop)
        if chunks.step != 1 or not 0 <= start <= stop <= self.chunks:
            raise ValueError(f"{chunks} is not a range of the {self.chunks} chunks")
        return slice(min(start * self.chunk_size, self.elements), min(stop * self.chunk_size, self.elements))
