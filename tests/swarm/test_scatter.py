"""Slices: what a peer gives of those that it holds, and to whom."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from btard.identity import Identity, PeerId
from btard.robust import is_finite
from btard.rules.config import RunConfig
from btard.rules.merkle import compute_leaves
from btard.swarm import state
from btard.swarm.frames import SliceHead, SliceRequest
from btard.swarm.scatter import Slices
from btard.swarm.state import Gradient, as_bytes, commit_to, scan
from btard.wire import encode

ME, OTHER, STRANGER = (Identity(letter * 32).peer_id for letter in (b"m", b"o", b"s"))
CONFIG = RunConfig(founder=ME.hex(), genesis_size=2, elements=60, chunk_size=8)
"""Eight chunks, the last one short."""
GRADIENT = commit_to(torch.arange(60, dtype=torch.float32), CONFIG.chunk_size)
ROOT = GRADIENT.tree.root
ROUND = 3


def receive(slices: Slices, sender: PeerId, chunks: range, gradient: Gradient = GRADIENT) -> bool:
    """Let a slice of a gradient arrive, unless it is refused."""
    values, tree = gradient.values[8 * chunks.start : 8 * chunks.stop], gradient.tree
    head = encode(SliceHead(ROUND, tree.root, chunks.start, chunks.stop, tree.prove(chunks)))
    target = slices.sink(sender, head, 4 * len(values))
    if target is None:
        return False
    target[:] = as_bytes(values)
    slices.done(sender, head, target)
    return True


@pytest.fixture
def sent() -> list[tuple[PeerId, bytes]]:
    """Whom slices were sent, with their heads."""
    return []


@pytest.fixture
def slices(sent: list[tuple[PeerId, bytes]]) -> Slices:
    """The slices of a member of two, in round 3."""
    hub: Any = SimpleNamespace(bulk={}, serve={}, offer_bulk=lambda peer, _kind, head, *_: sent.append((peer, head)))
    slices = Slices(CONFIG, hub, lambda: None, lambda *_: True, lambda peer: peer in (ME, OTHER))
    slices.begin_round(ROUND, 2)
    return slices


async def serve(slices: Slices, peer: PeerId, request: bytes) -> tuple[bytes, bytes]:
    """Return what a peer is answered."""
    head, loan = await slices._serve(peer, request)
    return head, b"" if loan is None else bytes(loan.payload)


async def test_members_alone_are_served(slices: Slices) -> None:
    """A member gets the slice that it asks for, a stranger nothing."""
    slices.keep_own(ROUND, GRADIENT)
    chunks = range(2, 5)
    request = encode(SliceRequest(ROUND, ROOT, chunks.start, chunks.stop))
    head = SliceHead(ROUND, ROOT, chunks.start, chunks.stop, GRADIENT.tree.prove(chunks))
    assert await serve(slices, OTHER, request) == (encode(head), bytes(as_bytes(GRADIENT.values[16:40])))
    assert await slices._serve(STRANGER, request) == (b"", None)


async def test_what_came_in_pieces_is_passed_on_and_served_as_one(
    slices: Slices, sent: list[tuple[PeerId, bytes]]
) -> None:
    """After a re-cut an aggregator holds some slices in pieces; whoever is to judge them takes and asks for one."""
    for chunks in (range(1, 4), range(6, 8), range(3, 6)):
        assert receive(slices, OTHER, chunks)
    whole = range(2, 8)
    request = encode(SliceRequest(ROUND, ROOT, whole.start, whole.stop))
    slices.forward(ROUND, ROOT, whole, OTHER)
    head = encode(SliceHead(ROUND, ROOT, whole.start, whole.stop, GRADIENT.tree.prove(whole)))
    assert sent == [(OTHER, head)]
    assert await serve(slices, OTHER, request) == (head, bytes(as_bytes(GRADIENT.values[16:60])))


async def test_what_others_ask_for_is_not_put_together_for_them(slices: Slices) -> None:
    """Who may name chunks, as who asks for them does, would have us keep copies of them without end."""
    for chunks in (range(1, 4), range(4, 6)):
        assert receive(slices, OTHER, chunks)
    assert await slices._serve(OTHER, encode(SliceRequest(ROUND, ROOT, 2, 5))) == (b"", None)
    values = slices.get(ROUND, ROOT, range(2, 5))
    assert values is not None
    assert torch.equal(values, GRADIENT.values[16:40])


@pytest.mark.parametrize("value", [0.0, -1e30, math.nan, math.inf, -3e38])
@pytest.mark.parametrize("pieces", [[range(2, 5)], [range(2, 4), range(4, 5)], [range(2, 3), range(3, 6)], []])
def test_slices_are_read_as_they_count(value: float, pieces: list[range], slices: Slices) -> None:
    """In one piece, in several, of our own: one element that does not count has the slice be zeros."""
    values = torch.ones(60)
    values[39] = value
    gradient = commit_to(values, CONFIG.chunk_size)
    for chunks in pieces:
        receive(slices, OTHER, chunks, gradient)
    if not pieces:
        slices.keep_own(ROUND, gradient)
    expected = values[16:40] if abs(value) <= 1e30 else torch.zeros(24)
    read = slices.read(ROUND, gradient.tree.root, range(2, 5))
    assert read is not None and torch.equal(read, expected)
    assert slices.read(ROUND, gradient.tree.root, range(6)) is None or not pieces


@given(
    elements=st.integers(1, 60),
    chunk_size=st.sampled_from([1, 7, 8, 64]),
    stretch=st.integers(1, 40),
    first=st.integers(0, 1000),
    special=st.sampled_from([0.0, math.nan, -math.inf, 3e38, -1e30, 1.5]),
    data=st.data(),
)
def test_one_reading_tells_leaves_and_the_largest_magnitude(
    elements: int, chunk_size: int, stretch: int, first: int, special: float, data: st.DataObject
) -> None:
    """As two readings would, wherever the largest element stands."""
    values = torch.linspace(-1, 1, elements)
    values[data.draw(st.integers(0, elements - 1))] = special
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "SCAN_ELEMENTS", stretch)
        found = scan(values, first, chunk_size)
    assert found.leaves == compute_leaves(as_bytes(values), first, 4 * chunk_size)
    largest = values.abs().max().item()
    assert found.largest == largest or (math.isnan(found.largest) and math.isnan(largest))
    assert found.counts == is_finite(values)
