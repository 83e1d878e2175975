"""Parts: what a peer gives of the aggregates that it holds."""

from types import SimpleNamespace

import torch

from btard.identity import Identity, PeerId
from btard.rules.config import RunConfig
from btard.rules.parts import Part
from btard.swarm.frames import Kind
from btard.swarm.gather import Parts

ME, OTHER = Identity(b"m" * 32).peer_id, Identity(b"o" * 32).peer_id
CONFIG = RunConfig(founder=ME.hex(), genesis_size=2, elements=16, chunk_size=8)
MINE = Part(0, ME, range(1), 0, 8, 1.0, 1.0)


def test_an_aggregate_that_a_restart_lost_is_not_sent() -> None:
    """Who has reduced its part sends it; who lost it in a restart sends nothing, and nothing breaks."""
    sent: list[tuple[PeerId, int]] = []
    hub = SimpleNamespace(bulk={}, serve={}, offer_bulk=lambda peer, kind, *_: sent.append((peer, kind)))
    parts = Parts(CONFIG, hub, lambda: None, lambda _peer: True)  # type: ignore[arg-type]
    parts.send(3, 1, MINE, [OTHER])
    assert sent == []
    parts.keep_own(3, 1, MINE, torch.ones(8))
    parts.send(3, 1, MINE, [OTHER])
    assert sent == [(OTHER, Kind.PART)]
