"""
hivemind's ``AllReduceRunner``, without matchmaking: the group is known, the links are made before the first turn.

It encrypts, through libp2p's daemon beside every process, and checks nothing. Runs in an environment of its own.
"""

import asyncio
import json
import os

import torch
from hivemind.averaging.allreduce import AllReduceRunner
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr

from benchmarks.contestants.gate import Gate, Role, parse_role
from benchmarks.contestants.vectors import Noise

PREFIX = "round-"


async def connect(role: Role, gate: Gate) -> tuple[P2P, list[PeerID]]:
    """Return our end, and everybody's id by rank, once all are connected."""
    p2p = await P2P.create(dht_mode="server", auto_nat=False, nat_port_map=False, use_relay=False)
    gate.companion = p2p._child.pid  # noqa: SLF001 - the daemon's time is part of what a round costs
    addresses = [str(address) for address in await p2p.get_visible_maddrs()]
    places = [json.loads(place) for place in await asyncio.to_thread(gate.meet, json.dumps(addresses))]
    members = [PeerID.from_base58(place[0].rpartition("/p2p/")[2]) for place in places]
    for member, place in zip(members[: role.rank], places, strict=False):
        maddrs = [Multiaddr(address.rpartition("/p2p/")[0]) for address in place]
        await p2p._client.connect(member, maddrs)  # noqa: SLF001 - its own way is a look-up in its DHT
    return p2p, members


async def compete(role: Role, gate: Gate) -> None:
    """Average a vector in place, once a turn."""
    p2p, members = await connect(role, gate)
    noise, vector, number = Noise(role.elements, role.seed), torch.empty(role.elements), 0
    while True:
        number += 1
        noise.fill(vector, role.rank + role.peers * number)
        runner = AllReduceRunner(
            p2p=p2p,
            servicer_type=AllReduceRunner,
            prefix=f"{PREFIX}{number}",
            group_id=number.to_bytes(8, "big"),
            tensors=[vector],
            ordered_peer_ids=members,
            peer_fractions=(1 / role.peers,) * role.peers,
        )
        await runner.add_p2p_handlers(p2p, namespace=f"{PREFIX}{number}")
        await asyncio.to_thread(gate.await_turn)
        async for delta in runner:
            vector += delta
        await asyncio.to_thread(gate.end_turn)
        await runner.remove_p2p_handlers(p2p, namespace=f"{PREFIX}{number}")


if __name__ == "__main__":
    os.environ.setdefault("HIVEMIND_LOGLEVEL", "WARNING")
    torch.set_num_threads(1)
    asyncio.run(compete(parse_role(), Gate()))
