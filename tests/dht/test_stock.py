"""What the stock package does under abuse: the reasons for each piece of hardening.

When one of these tests fails, the package was repaired and a piece of ours may go.
"""

import os

import kademlia.network
import pytest
import trio
import trio_asyncio
import umsgpack
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from .hostile import LOOPBACK, Stranger, open_stranger


async def open_stock(loop: trio_asyncio.TrioEventLoop, timeout: float = 0.2) -> tuple[Server, int]:
    """Return a listening stock server with a short timeout, and its port."""
    server = Server()
    await loop.run_aio_coroutine(server.listen(0, LOOPBACK))
    server.protocol._wait_timeout = timeout
    return server, server.transport.get_extra_info("sockname")[1]


@pytest.mark.parametrize("body", [b"\xc1", umsgpack.packb(["ping", [1]]), umsgpack.packb("ping")])
async def test_one_malformed_datagram_ends_the_program(body: bytes) -> None:
    """Junk, a wrong type, or a wrong shape escapes into the loop and out of it."""
    with pytest.raises(BaseExceptionGroup), trio.fail_after(5):
        async with open_stranger() as stranger, trio_asyncio.open_loop() as loop:
            server, port = await open_stock(loop)
            try:
                await stranger.socket.sendto(b"\x00" + bytes(20) + body, (LOOPBACK, port))
                await trio.sleep_forever()
            finally:
                server.stop()


async def test_one_cancelled_call_ends_the_program() -> None:
    """Its timer fires on a future that is done already."""
    with pytest.raises(BaseExceptionGroup), trio.fail_after(5):
        async with open_stranger() as silent, trio_asyncio.open_loop() as loop:
            server, _ = await open_stock(loop)
            try:
                with trio.move_on_after(0.05):
                    await loop.run_aio_coroutine(server.protocol.call_ping(Node(bytes(20), LOOPBACK, silent.port)))
                await trio.sleep_forever()
            finally:
                server.stop()


async def test_anyone_may_bring_any_number_of_node_ids() -> None:
    """One socket fills the routing table with ids it made up."""
    async with open_stranger() as stranger, trio_asyncio.open_loop() as loop:
        server, port = await open_stock(loop, timeout=5.0)
        for _ in range(50):
            request = umsgpack.packb(["ping", [os.urandom(20)]])
            await stranger.socket.sendto(b"\x00" + os.urandom(20) + request, (LOOPBACK, port))
            assert await stranger.receive() is not None
        assert sum(len(bucket) for bucket in server.protocol.router.buckets) == 50
        server.stop()


async def test_anyone_may_overwrite_any_key_with_anything() -> None:
    """The last writer wins, at any size."""
    async with open_stranger() as stranger, trio_asyncio.open_loop() as loop:
        server, port = await open_stock(loop, timeout=5.0)
        server.storage[b"k" * 20] = b"honest"
        request = umsgpack.packb(["store", [os.urandom(20), b"k" * 20, bytes(30_000)]])
        await stranger.socket.sendto(b"\x00" + os.urandom(20) + request, (LOOPBACK, port))
        assert await stranger.receive() is not None
        assert server.storage.get(b"k" * 20) == bytes(30_000)
        server.stop()


async def test_an_evil_answer_makes_a_lookup_raise() -> None:
    """A list for a value breaks the count of answers."""

    async def answer_with_a_list(stranger: Stranger) -> None:
        while True:
            data, address = await stranger.socket.recvfrom(65536)
            await stranger.socket.sendto(b"\x01" + data[1:21] + umsgpack.packb({"value": [1]}), address)

    async with open_stranger() as evil, trio.open_nursery() as nursery, trio_asyncio.open_loop() as loop:
        server, _ = await open_stock(loop)
        nursery.start_soon(answer_with_a_list, evil)
        server.protocol.router.add_contact(Node(b"e" * 20, LOOPBACK, evil.port))
        with pytest.raises(TypeError, match="unhashable"), trio.fail_after(5):
            await loop.run_aio_coroutine(server.get("key"))
        server.stop()
        nursery.cancel_scope.cancel()


def test_ours_still_builds_on_it() -> None:
    """The hardened classes are subclasses of the package's, and use neither its pickle nor its dispatch."""
    from btard.dht.protocol import HardenedProtocol
    from btard.dht.server import HardenedServer

    assert issubclass(HardenedServer, kademlia.network.Server)
    assert issubclass(HardenedProtocol, KademliaProtocol)
    assert HardenedServer.save_state is not Server.save_state
    assert HardenedProtocol.datagram_received is not KademliaProtocol.datagram_received
