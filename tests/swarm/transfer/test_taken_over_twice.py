"""A piece that comes back to a source before the source has given up its first try (seed 530873)."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from btard.errors import NetworkError
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.merkle import MerkleTree, compute_leaves
from btard.swarm.compute import InlineCompute
from btard.swarm.joining.assembly import Assembly
from btard.swarm.joining.fetching_vectors import Meter, Vector, VectorFetcher, _Piece

SOURCE = Identity(b"s" * 32).peer_id
CONFIG = RunConfig(founder=SOURCE.hex(), genesis_size=2, elements=16, chunk_size=8)
WINDOW = memoryview(bytearray(1 << 16))


async def test_the_end_of_the_first_try_is_not_that_of_the_second(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Bytes that come for the second have a place, and it ends like every other."""
    has_place: list[bool] = []

    async def request(peer: object, kind: int, head: bytes, **_options: object) -> None:
        await trio.sleep(5.0)
        has_place.append(fetcher.sink(SOURCE, head, 32) is not None)
        raise NetworkError("it went away")

    hub: Any = SimpleNamespace(bulk={}, request=request, drop_bulk=lambda *_: None)
    sources: Any = SimpleNamespace()
    fetcher = VectorFetcher(CONFIG, hub, InlineCompute(), sources, Meter())
    leaves = compute_leaves(memoryview(bytes(64)), 0, 32)
    assembly = Assembly(tmp_path / "vector", 16, b"".join(leaves), 32)
    piece = _Piece(Vector(3, MerkleTree.build(leaves, 16).root, 16), assembly, range(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher._receive, piece, SOURCE, WINDOW)
        await trio.sleep(1.0)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), pytest.raises(NetworkError):
            await fetcher._receive(piece, SOURCE, WINDOW)
    assert has_place == [True]
