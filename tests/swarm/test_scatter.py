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


async def test_members_alone_are_served(slices: Slices) -> None:
    """A member gets the slice that it asks for, a stranger nothing."""
    slices.keep_own(ROUND, GRADIENT)
    chunks = range(2, 5)
    request = encode(SliceRequest(ROUND, ROOT, chunks.start, chunks.stop))
    head = SliceHead(ROUND, ROOT, chunks.start, chunks.stop, GRADIENT.tree.prove(chunks))
    assert await slices._serve(OTHER, request) == (encode(head), as_bytes(GRADIENT.values[16:40]))
    assert await slices._serve(STRANGER, request) == (b"", None)
