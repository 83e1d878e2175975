"""The butterfly without checks, and the vectors that all contestants reduce."""

import torch
import trio
from benchmarks.contestants.gate import Role
from benchmarks.contestants.plain import Butterfly
from benchmarks.contestants.vectors import TILE, Noise

from btard.identity import Identity
from btard.net import Hub, MemoryNetwork, Terms
from btard.swarm.compute import InlineCompute

PEERS, ELEMENTS = 3, 10


async def reduce_twice(rank: int, butterfly: Butterfly, means: dict[int, torch.Tensor]) -> None:
    """Keep the mean of the second of two rounds."""
    for number in (1, 2):
        butterfly.vector.fill_(float(10 * number + rank))
        means[rank] = (await butterfly.reduce()).clone()


async def test_all_have_the_mean_in_every_round(autojump_clock: trio.testing.MockClock):
    """Buffers are used again, and the second round's mean has nothing of the first."""
    network, identities = MemoryNetwork(), [Identity(bytes([rank + 1] * 32)) for rank in range(PEERS)]
    members, means = [identity.peer_id for identity in identities], dict[int, torch.Tensor]()
    transports = [network.transport(identity, Terms(b"plain")) for identity in identities]
    hubs = [Hub(transport, peer) for transport, peer in zip(transports, members, strict=True)]
    async with trio.open_nursery() as hosting:
        for rank, hub in enumerate(hubs):
            await hosting.start(hub.run)
            for peer, transport in zip(members[:rank], transports, strict=False):
                await hub.connect(peer, transport.addresses[0])
        async with trio.open_nursery() as nursery:
            for rank, hub in enumerate(hubs):
                role = Role(rank, PEERS, ELEMENTS, 0, "")
                nursery.start_soon(reduce_twice, rank, Butterfly(role, hub, members, InlineCompute()), means)
        hosting.cancel_scope.cancel()
    assert len(means) == PEERS
    assert all(torch.equal(mean, torch.full((ELEMENTS,), 21.0)) for mean in means.values())


def test_noise_depends_on_its_key_and_on_nothing_else():
    """Equal keys give equal vectors, other keys others; longer vectors go on where shorter ones end."""
    noise = Noise(TILE + 100, 1)
    vector = noise.draw(5)
    assert torch.equal(vector, noise.draw(5))
    assert not torch.equal(vector, noise.draw(6))
    assert torch.equal(vector[:50], Noise(50, 1).draw(5))
    assert abs(float(vector.var()) - 1) < 0.01
