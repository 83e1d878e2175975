"""
Our own butterfly without any check: the same links and the same encryption, slices out, means back.

Nothing is committed to, hashed, proven, signed, reported or written down, and every buffer is used again. What
the protocol costs beyond that is what the checks cost.
"""

from functools import partial

import structlog
import torch
import trio
from torch import Tensor

from benchmarks.contestants.gate import Gate, Role, parse_role
from benchmarks.contestants.vectors import Noise
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Address, Hub, Terms, open_tcp
from btard.robust import compute_parts
from btard.swarm.compute import Compute, ThreadCompute
from btard.swarm.state import as_bytes

LOOPBACK = Address("127.0.0.1", 0)
SLICE, PART = 1, 2


class Inbox:
    """The payloads of one kind that a round brings, each into the memory that is kept for its sender."""

    def __init__(self, hub: Hub, kind: int, places: dict[PeerId, Tensor]) -> None:
        self._places, self._missing, self._complete = places, set(places), trio.Event()
        hub.bulk[kind] = self

    def sink(self, peer: PeerId, head: bytes, size: int) -> memoryview | None:
        """The memory for what ``peer`` sends."""
        return as_bytes(self._places[peer])

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Count it."""
        self._missing.discard(peer)
        if not self._missing:
            self._complete.set()

    async def wait(self) -> None:
        """Return once all have sent theirs, ready for the next round."""
        await self._complete.wait()
        self._missing, self._complete = set(self._places), trio.Event()


class Butterfly:
    """One peer: its part of the vector, and everybody's place in it."""

    def __init__(self, role: Role, hub: Hub, members: list[PeerId], compute: Compute) -> None:
        cuts = compute_parts(role.elements, role.peers)
        self._hub, self._compute = hub, compute
        self.vector, self._merged = torch.empty(role.elements), torch.empty(role.elements)
        self._mine = slice(cuts[role.rank].start, cuts[role.rank].stop)
        self._where = {
            peer: slice(cut.start, cut.stop) for peer, cut in zip(members, cuts, strict=True) if peer != hub.me
        }
        length = len(cuts[role.rank])
        self._rows = {peer: torch.empty(length) for peer in self._where}
        self._slices = Inbox(hub, SLICE, self._rows)
        self._parts = Inbox(hub, PART, {peer: self._merged[where] for peer, where in self._where.items()})

    async def reduce(self) -> Tensor:
        """Return the mean of all vectors, (elements,), in memory that the next round uses again."""
        async with trio.open_nursery() as nursery:
            for peer, where in self._where.items():
                nursery.start_soon(self._hub.send_bulk, peer, SLICE, b"", as_bytes(self.vector[where]))
            await self._slices.wait()
            await self._compute.run(self._average)
            mean = as_bytes(self._merged[self._mine])
            for peer in self._where:
                nursery.start_soon(self._hub.send_bulk, peer, PART, b"", mean)
            await self._parts.wait()
        return self._merged

    def _average(self) -> None:
        mean = self._merged[self._mine]
        mean.copy_(self.vector[self._mine])
        for row in self._rows.values():
            mean += row
        mean /= len(self._rows) + 1


async def compete(role: Role, gate: Gate) -> None:
    """Average a vector once a turn, over links that are made before the first."""
    identities = [
        Identity(digest(Context.EXPAND, b"plain", f"{role.seed}/{rank}".encode())) for rank in range(role.peers)
    ]
    me, members = identities[role.rank], [identity.peer_id for identity in identities]
    noise, number = Noise(role.elements, role.seed), 0
    async with open_tcp(me, Terms(b"plain"), LOOPBACK) as transport, trio.open_nursery() as nursery:
        hub = Hub(transport, me.peer_id)
        await nursery.start(hub.run)
        places = await trio.to_thread.run_sync(gate.meet, str(transport.address))
        butterfly = Butterfly(role, hub, members, ThreadCompute())
        for peer, place in zip(members[: role.rank], places, strict=False):
            await hub.connect(peer, Address.parse(place))
        await hub.wait_connected([peer for peer in members if peer != me.peer_id])
        while True:
            number += 1
            noise.fill(butterfly.vector, role.rank + role.peers * number)
            await trio.to_thread.run_sync(gate.await_turn)
            data, protocol = transport.traffic.data_sent, transport.traffic.protocol_sent
            await butterfly.reduce()
            data, protocol = transport.traffic.data_sent - data, transport.traffic.protocol_sent - protocol
            await trio.to_thread.run_sync(partial(gate.end_turn, bytes_data=data, bytes_protocol=protocol))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    torch.set_num_threads(1)
    trio.run(partial(compete, parse_role(), Gate()))
