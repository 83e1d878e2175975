"""
Commitments: a Merkle tree over the fixed chunks of a vector (paper, Algorithm 2: hash(g_i[j])).

The leaves do not depend on the roster, so a commitment outlives every re-cut of the parts. A leaf
binds its index, the root binds the number of leaves and of elements; an odd node moves up alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from btard.identity import Context, digest


def compute_leaf(index: int, chunk: bytes | memoryview) -> bytes:
    """Return the digest of one chunk (its raw float32 bytes) at its place in the vector."""
    return digest(Context.LEAF, index.to_bytes(8, "little"), chunk)  # type: ignore[arg-type]


def compute_leaves(data: memoryview, first: int, chunk_bytes: int) -> list[bytes]:
    """Return the leaves of consecutive chunks starting with number ``first``; the last may be short."""
    starts = range(0, len(data), chunk_bytes)
    return [compute_leaf(first + n, data[start : start + chunk_bytes]) for n, start in enumerate(starts)]


def _parents(level: Sequence[bytes]) -> list[bytes]:
    pairs = [digest(Context.NODE, *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
    return pairs + ([level[-1]] if len(level) % 2 else [])


def _seal_root(count: int, elements: int, top: bytes) -> bytes:
    return digest(Context.ROOT, count.to_bytes(8, "little"), elements.to_bytes(8, "little"), top)


@dataclass(frozen=True)
class MerkleTree:
    """All levels of the tree, leaves first."""

    elements: int
    levels: tuple[tuple[bytes, ...], ...]

    @classmethod
    def build(cls, leaves: Sequence[bytes], elements: int) -> "MerkleTree":
        """The tree over ``leaves``, which together hold ``elements`` numbers."""
        levels = [tuple(leaves)]
        while len(levels[-1]) > 1:
            levels.append(tuple(_parents(levels[-1])))
        return cls(elements, tuple(levels))

    @cached_property
    def root(self) -> bytes:
        """The 32-byte commitment."""
        return _seal_root(len(self.levels[0]), self.elements, self.levels[-1][0] if self.levels[0] else b"")

    def prove(self, chunks: range) -> tuple[bytes, ...]:
        """Return the nodes that, with the leaves of ``chunks``, give the root: at most 2·log2(leaves)."""
        return tuple(self.levels[depth][index] for depth, index in _siblings(len(self.levels[0]), chunks))


def compute_root(data: memoryview, chunk_bytes: int) -> bytes:
    """Return the Merkle root of a whole vector of float32 bytes."""
    return MerkleTree.build(compute_leaves(data, 0, chunk_bytes), len(data) // 4).root


def _siblings(count: int, chunks: range) -> Iterator[tuple[int, int]]:
    """(depth, index) of every node a proof must supply, from the bottom up, left before right."""
    low, high, depth = chunks.start, chunks.stop, 0
    while count > 1:
        if low % 2:
            yield depth, low - 1
        if high % 2 and high < count:
            yield depth, high
        low, high, count, depth = low // 2, (high + 1) // 2, (count + 1) // 2, depth + 1


def join_proofs(
    count: int, pieces: Iterable[tuple[range, Sequence[bytes], Sequence[bytes]]], chunks: range
) -> tuple[bytes, ...]:
    """Return the proof of ``chunks`` from proven pieces (range, leaves, proof) that together hold all of them."""
    known: dict[tuple[int, int], bytes] = {}
    for held, leaves, proof in pieces:
        known |= zip(_siblings(count, held), proof, strict=True)
        known |= {(0, index): leaf for index, leaf in zip(held, leaves, strict=True)}
    size, depth = count, 0
    while size > 1:
        for index in [index for level, index in known if level == depth and index % 2 == 0]:
            pair = [known[depth, i] for i in (index, index + 1) if (depth, i) in known]
            if len(pair) == min(2, size - index):
                known[depth + 1, index // 2] = _parents(pair)[0]
        size, depth = (size + 1) // 2, depth + 1
    return tuple(known[node] for node in _siblings(count, chunks))


def is_in_tree(
    root: bytes, count: int, elements: int, chunks: range, leaves: Sequence[bytes], proof: Sequence[bytes]
) -> bool:
    """Return whether ``leaves`` are the leaves ``chunks`` of the committed tree of ``count`` leaves."""
    if not (0 <= chunks.start < chunks.stop <= count) or len(leaves) != len(chunks):
        return False
    if len(proof) != sum(1 for _ in _siblings(count, chunks)):
        return False
    supplied, level, low, total = iter(proof), list(leaves), chunks.start, count
    while total > 1:
        high = low + len(level)
        if low % 2:
            level.insert(0, next(supplied))
        if high % 2 and high < total:
            level.append(next(supplied))
        level, low, total = _parents(level), low // 2, (total + 1) // 2
    return _seal_root(count, elements, level[0]) == root
