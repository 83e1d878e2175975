"""Commitments: a range proof accepts the committed chunks and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.identity import Context, digest
from btard.rules.merkle import MerkleTree, compute_leaf, compute_leaves, compute_root, is_in_tree, join_proofs

CHUNK = 8


def make_tree(count: int) -> MerkleTree:
    """A tree over ``count`` distinct chunks of two floats."""
    return MerkleTree.build([compute_leaf(n, n.to_bytes(CHUNK, "little")) for n in range(count)], 2 * count)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[MerkleTree, range]:
    """A tree and a non-empty range of its leaves."""
    count = draw(st.integers(1, 70))
    start = draw(st.integers(0, count - 1))
    return make_tree(count), range(start, draw(st.integers(start + 1, count)))


def check(tree: MerkleTree, chunks: range, **changes: object) -> bool:
    """is_in_tree on the truth, but for the arguments in ``changes``."""
    arguments = {
        "root": tree.root,
        "count": len(tree.levels[0]),
        "elements": tree.elements,
        "chunks": chunks,
        "leaves": tree.levels[0][chunks.start : chunks.stop],
        "proof": tree.prove(chunks),
    }
    return is_in_tree(**(arguments | changes))  # type: ignore[arg-type]


@given(ranges())
def test_truth_is_accepted(case: tuple[MerkleTree, range]) -> None:
    """Every range of every tree, odd counts included, is proven by its own proof."""
    assert check(*case)


@given(ranges(), st.data())
def test_proofs_of_pieces_give_that_of_the_whole(case: tuple[MerkleTree, range], data: st.DataObject) -> None:
    """Pieces that cover a range, overlapping or reaching beyond it, prove it as the tree itself does."""
    tree, chunks = case
    count, pieces = len(tree.levels[0]), []
    for chunk in chunks:
        start = data.draw(st.integers(0, chunk))
        pieces.append(range(start, data.draw(st.integers(chunk + 1, count))))
    proven = [(held, tree.levels[0][held.start : held.stop], tree.prove(held)) for held in pieces]
    assert join_proofs(count, proven, chunks) == tree.prove(chunks)


@given(ranges(), st.data())
def test_changed_leaf_is_refused(case: tuple[MerkleTree, range], data: st.DataObject) -> None:
    """No leaf of the range can be another one."""
    tree, chunks = case
    leaves = list(tree.levels[0][chunks.start : chunks.stop])
    leaves[data.draw(st.integers(0, len(leaves) - 1))] = data.draw(st.binary(min_size=32, max_size=32))
    assert not check(tree, chunks, leaves=leaves)


@given(ranges(), st.data())
def test_changed_proof_is_refused(case: tuple[MerkleTree, range], data: st.DataObject) -> None:
    """No node of the proof can be changed, dropped or added."""
    tree, chunks = case
    proof = list(tree.prove(chunks))
    assert not check(tree, chunks, proof=[*proof, b"\x00" * 32])
    if proof:
        where = data.draw(st.integers(0, len(proof) - 1))
        assert not check(tree, chunks, proof=proof[:where] + proof[where + 1 :])
        assert not check(tree, chunks, proof=[*proof[:where], b"\x00" * 32, *proof[where + 1 :]])


@given(ranges(), st.integers(-3, 3).filter(bool))
def test_shifted_range_is_refused(case: tuple[MerkleTree, range], shift: int) -> None:
    """Leaves and proof of one range do not pass for those of another."""
    tree, chunks = case
    leaves, count = tree.levels[0][chunks.start : chunks.stop], len(tree.levels[0])
    shifted = range(chunks.start + shift, chunks.stop + shift)
    assert not is_in_tree(tree.root, count, tree.elements, shifted, leaves, tree.prove(chunks))


@given(ranges(), st.integers(1, 90), st.integers(0, 200))
def test_other_count_or_number_of_elements_is_refused(
    case: tuple[MerkleTree, range], count: int, elements: int
) -> None:
    """The root binds how many leaves and how many numbers it covers."""
    tree, chunks = case
    assert check(tree, chunks, count=count) == (count == len(tree.levels[0]))
    assert check(tree, chunks, elements=elements) == (elements == tree.elements)


@pytest.mark.parametrize(
    "chunks", [range(0), range(3, 3), range(2, 1), range(7, 9), range(-1, 1), range(8, 9)], ids=str
)
def test_range_outside_the_tree_is_refused(chunks: range) -> None:
    """Empty, reversed and overhanging ranges prove nothing."""
    tree = make_tree(8)
    leaves = [b"\x00" * 32] * len(chunks)
    assert not is_in_tree(tree.root, 8, tree.elements, chunks, leaves, [])


@given(ranges())
def test_proof_grows_with_the_logarithm_only(case: tuple[MerkleTree, range]) -> None:
    """A range proof has at most two nodes per level."""
    tree, chunks = case
    assert len(tree.prove(chunks)) <= 2 * (len(tree.levels) - 1)


@given(st.integers(0, 40), st.data())
def test_empty_part_can_be_asked_for_a_proof(count: int, data: st.DataObject) -> None:
    """With fewer chunks than members some parts are empty: nothing is proven, and nothing fails."""
    where = data.draw(st.integers(0, count))
    tree = make_tree(count)
    assert not is_in_tree(tree.root, count, tree.elements, range(where, where), [], tree.prove(range(where, where)))


def test_whole_tree_needs_no_proof() -> None:
    """All leaves together are their own proof."""
    assert make_tree(13).prove(range(13)) == ()


def test_inner_node_does_not_pass_for_a_leaf() -> None:
    """A tree over the parents of a tree has another root: leaves and nodes have different contexts (attacks C9)."""
    tree = make_tree(8)
    assert MerkleTree.build(tree.levels[1], tree.elements).root != tree.root
    assert digest(Context.LEAF, b"a", b"b") != digest(Context.NODE, b"a", b"b")


def test_nodes_are_hashed_in_their_own_context() -> None:
    """The node above two leaves is their digest as a node, which no chunk's digest as a leaf can equal."""
    tree = make_tree(2)
    assert tree.levels[1] == (digest(Context.NODE, *tree.levels[0]),)


def test_leaf_binds_its_place() -> None:
    """Equal chunks at different places have different leaves."""
    assert compute_leaf(0, b"same") != compute_leaf(1, b"same")


def test_odd_leaf_cannot_be_doubled() -> None:
    """Three leaves and the same with the last repeated are told apart."""
    leaves = list(make_tree(3).levels[0])
    assert MerkleTree.build([*leaves, leaves[-1]], 6).root != MerkleTree.build(leaves, 6).root


@given(st.integers(0, 40), st.integers(1, 9))
def test_root_of_a_vector_is_the_tree_over_its_chunks(elements: int, chunk: int) -> None:
    """compute_root cuts a vector into chunks, the last one short, and counts its elements."""
    data = memoryview(bytes(range(4 * elements)))
    tree = MerkleTree.build(compute_leaves(data, 0, 4 * chunk), elements)
    assert compute_root(data, 4 * chunk) == tree.root
    assert len(tree.levels[0]) == -(-elements // chunk)


def test_slice_has_the_leaves_of_its_place_in_the_vector() -> None:
    """An aggregator computes the very leaves that the contributor committed to."""
    data = memoryview(bytes(range(200)))
    assert compute_leaves(data[64:128], 4, 16) == compute_leaves(data, 0, 16)[4:8]


def test_any_changed_byte_changes_the_root() -> None:
    """One flipped bit anywhere shows in the root."""
    data = bytes(range(100))
    roots = {compute_root(memoryview(data), 12)}
    for index in range(100):
        changed = bytearray(data)
        changed[index] ^= 1
        roots.add(compute_root(memoryview(bytes(changed)), 12))
    assert len(roots) == 101


def test_number_of_elements_alone_changes_the_root() -> None:
    """Two trees with equal leaves and different lengths are different commitments."""
    tree = make_tree(4)
    assert replace(tree, elements=7).root != tree.root
