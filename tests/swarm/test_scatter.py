"""Slices: what a peer gives of those that it holds, and to whom."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from btard.identity import Identity, PeerId
from btard.rules.config import RunConfig
from btard.swarm.frames import SliceHead, SliceRequest
from btard.swarm.scatter import Slices
from btard.swarm.state import as_bytes, commit_to
from btard.wire import encode

ME, OTHER, STRANGER = (Identity(letter * 32).peer_id for letter in (b"m", b"o", b"s"))
CONFIG = RunConfig(founder=ME.hex(), genesis_size=2, elements=60, chunk_size=8)
"""Eight chunks, the last one short."""
GRADIENT = commit_to(torch.arange(60, dtype=torch.float32), CONFIG.chunk_size)
ROOT = GRADIENT.tree.root
ROUND = 3


def receive(slices: Slices, sender: PeerId, chunks: range) -> bool:
    """Let a slice of the gradient arrive, unless it is refused."""
    values = GRADIENT.values[8 * chunks.start : 8 * chunks.stop]
    head = encode(SliceHead(ROUND, ROOT, chunks.start, chunks.stop, GRADIENT.tree.prove(chunks)))
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
