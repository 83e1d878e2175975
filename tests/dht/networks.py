"""
Networks for whole DHTs: one in memory, and one that can be cut in two and mended.

In memory a packet takes 20 ms of the loop's clock, which is virtual under test, so nothing depends
on how busy the machine is; UDP on loopback under a virtual clock would, for its packets take real time.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from btard.dht.protocol import Address, HardenedProtocol
from btard.dht.server import Network

DELAY_SECONDS = 0.02
FIRST_PORT = 20_000
"""In memory: of the first protocol that asks for any port; the next gets the next."""


class MemoryNetwork:
    """Carries datagrams between protocols of one program."""

    def __init__(self) -> None:
        self._protocols: dict[Address, HardenedProtocol] = {}
        self._ports = itertools.count(FIRST_PORT)

    async def open(
        self, create: Callable[[], HardenedProtocol], address: Address
    ) -> tuple[asyncio.DatagramTransport, HardenedProtocol]:
        """Put a new protocol at an address."""
        home = (address[0], address[1] or next(self._ports))
        transport, protocol = MemoryTransport(self, home), create()
        self._protocols[home] = protocol
        protocol.connection_made(transport)
        return transport, protocol

    def close(self, home: Address) -> None:
        """Let nothing arrive at an address any more."""
        self._protocols.pop(home, None)

    def deliver(self, data: bytes, source: Address, destination: Address) -> None:
        """Hand a packet over if anybody is there."""
        if destination in self._protocols:
            self._protocols[destination].datagram_received(data, source)


class MemoryTransport(asyncio.DatagramTransport):
    """One end in a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, home: Address) -> None:
        super().__init__({"sockname": home})
        self._network, self._home = network, home
        self._is_closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a packet, which may find nobody."""
        loop = asyncio.get_running_loop()
        loop.call_later(DELAY_SECONDS, self._network.deliver, bytes(data), self._home, addr)

    def is_closing(self) -> bool:
        """Return whether nothing is sent any more."""
        return self._is_closed

    def get_write_buffer_size(self) -> int:
        """Return 0: packets leave at once."""
        return 0

    def close(self) -> None:
        """Leave the network."""
        self._is_closed = True
        self._network.close(self._home)


class Cable:
    """Another network, which can be cut between some hosts and others."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sides: dict[str, int] = {}

    async def open(
        self, create: Callable[[], HardenedProtocol], address: Address
    ) -> tuple[asyncio.DatagramTransport, HardenedProtocol]:
        """Put a new protocol at an address."""
        transport, protocol = await self._network(create, address)
        receive = protocol.datagram_received

        def receive_from_our_side(data: bytes, source: tuple[Any, ...]) -> None:
            if self._sides.get(source[0]) == self._sides.get(address[0]):
                receive(data, source)

        protocol.datagram_received = receive_from_our_side  # type: ignore[method-assign]
        return transport, protocol

    def cut(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Let no packet pass between the hosts of one side and those of the other."""
        self._sides = dict.fromkeys(one, 1) | dict.fromkeys(other, 2)

    def mend(self) -> None:
        """Let every packet pass again."""
        self._sides = {}
