"""One node of the DHT, asyncio-flavoured: what `btard.dht.directory` runs inside trio."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from time import time_ns
from typing import NoReturn

from kademlia.network import Server
from kademlia.node import Node

from btard.dht.contact import KEY_SIZE
from btard.dht.crawl import PARALLEL, Ask, Crawl, never
from btard.dht.datagram import IdentityWork, node_id_of
from btard.dht.messages import BUCKET_SIZE
from btard.dht.newest import Newest
from btard.dht.protocol import Address, HardenedProtocol
from btard.dht.storage import RecordStorage
from btard.errors import LocalProtocolError
from btard.identity import Identity


def wall_clock_ms() -> int:
    """Return Unix time in milliseconds."""
    return time_ns() // 1_000_000


Network = Callable[
    [Callable[[], HardenedProtocol], Address], Awaitable[tuple[asyncio.DatagramTransport, HardenedProtocol]]
]
"""What carries datagrams: puts a new protocol at an address. UDP, or a network that a test plays."""


async def on_udp(
    create: Callable[[], HardenedProtocol], address: Address
) -> tuple[asyncio.DatagramTransport, HardenedProtocol]:
    """Put a protocol at a UDP address; port 0 lets the system choose."""
    return await asyncio.get_running_loop().create_datagram_endpoint(create, local_addr=address)


class HardenedServer(Server):  # type: ignore[misc]  # kademlia has no types
    """`kademlia.network.Server` without its unbounded loops, its trust in answers, and pickle.

    Every method ends by itself only as fast as the network lets it: callers set a deadline and
    may cancel at any point.
    """

    protocol: HardenedProtocol

    def __init__(
        self,
        identity: Identity,
        work: IdentityWork,
        run_id: bytes,
        network: Network = on_udp,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        node_id = node_id_of(run_id, identity.peer_id, work.nonce)
        storage = RecordStorage(run_id, node_id, now_ms)
        super().__init__(ksize=BUCKET_SIZE, alpha=PARALLEL, node_id=node_id, storage=storage)
        self._identity, self._work, self._run_id, self._now_ms = identity, work, run_id, now_ms
        self._network = network

    @property
    def port(self) -> int:
        """The UDP port we listen on; meaningful after ``listen``."""
        return int(self.transport.get_extra_info("sockname")[1])

    @property
    def family(self) -> socket.AddressFamily:
        """Whether we speak IPv4 or IPv6, by the address we listen on."""
        return socket.AF_INET6 if ":" in self.transport.get_extra_info("sockname")[0] else socket.AF_INET

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:
        """Be at this address from now on; raises OSError where that is not possible."""
        self.transport, self.protocol = await self._network(self._create_protocol, (interface, port))

    async def bootstrap_node(self, addr: Address) -> Node | None:
        """Return the node that answers at ``addr``, or ``None``."""
        return await self.protocol.ping_address(addr)

    async def bootstrap(self, addrs: Iterable[Address]) -> list[Node]:
        """Return the nodes closest to us after asking those at ``addrs`` and the ones we know already."""
        await asyncio.gather(*(self.bootstrap_node(addr) for addr in addrs))
        return await self._closest(self.node)

    async def explore(self) -> None:
        """Look up a random id: distant entries are refreshed or found dead, and distant nodes hear of us."""
        await self._closest(Node(os.urandom(KEY_SIZE)))

    async def set_digest(self, dkey: bytes, value: bytes) -> int:
        """Store our own record with us and the closest nodes; return how many others hold it now."""
        self.storage.put(dkey, value)
        nodes = await self._closest(Node(dkey))
        return sum(await asyncio.gather(*(self.protocol.call_store(node, dkey, value) for node in nodes)))

    async def get(self, key: bytes, newest: Newest) -> None:
        """Show ``newest`` the records that we and the nodes closest to ``key`` hold, until it is settled."""
        own = self.storage.get(key)
        if own is not None:
            newest.consider(own)

        async def ask(node: Node) -> list[Node] | None:
            found = await self.protocol.call_find_value(node, target)
            if found is not None and found[0] is not None:
                newest.consider(found[0])
            return None if found is None else found[1]

        target = Node(key)
        await self._crawl(target, ask, lambda: newest.is_settled)

    async def set(self, key: object, value: object) -> NoReturn:
        """Refuse: the only key we may write is our own contact key, through ``set_digest``."""
        raise LocalProtocolError("only a peer's own contact record is stored in the DHT")

    def save_state(self, fname: object) -> NoReturn:
        """Refuse: the stock format is a pickle; addresses are kept by `btard.dht.entrances`."""
        raise LocalProtocolError("routing tables are not saved: unpickling one would run its code")

    def _create_protocol(self) -> HardenedProtocol:
        return HardenedProtocol(self._identity, self._work, self._run_id, self.storage, self._now_ms)

    async def _closest(self, target: Node) -> list[Node]:
        async def ask(node: Node) -> list[Node] | None:
            return await self.protocol.call_find_node(node, target)

        return await self._crawl(target, ask, never)

    async def _crawl(self, target: Node, ask: Ask, is_enough: Callable[[], bool]) -> list[Node]:
        return await Crawl(ask, target, BUCKET_SIZE, is_enough).run(self.protocol.table.closest(target))
