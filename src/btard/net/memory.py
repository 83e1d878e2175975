"""Links within one process, for simulations and tests: whole messages, no encryption, faults on request."""

import itertools
from collections.abc import Callable, Collection
from functools import partial
from typing import NoReturn

import trio

from btard.errors import ConnectionLost, Unreachable
from btard.identity import Identity, PeerId, short
from btard.net.address import Address
from btard.net.frames import compute_bulk_size, compute_control_size
from btard.net.link import Message, Sink, Window, check_message, find_memory, never, take_target
from btard.net.pipe import Arrival, Courier, Pipe
from btard.net.terms import Terms, check_terms
from btard.net.traffic import Traffic

HOST = "memory"
BACKLOG = 64  # links dialled and not yet accepted

Delivery = Callable[[PeerId, PeerId, Message], float | tuple[float, ...] | None]
"""Given (sender, receiver, message), returns the delay in seconds of virtual time.

Several delays deliver a copy each; ``None`` loses the message, which no honest network does between two
living ends of a link: it delays, or it breaks the link.
"""


def deliver_at_once(_sender: PeerId, _receiver: PeerId, _message: Message) -> float:
    """Be the network without faults."""
    return 0.0


def tell_nobody(*_news: object) -> None:
    """Be the listener that listens to nothing."""


class MemoryNetwork:
    """
    All the transports of one process; whoever is ``asleep`` takes no message, who is ``closed`` only dials out.

    ``newest`` is the control message that was sent last: what goes to many, one after another, is one object, and
    ``on_message`` is told of it once.
    """

    def __init__(self, delivery: Delivery = deliver_at_once) -> None:
        self.delivery = delivery
        self.on_message: Callable[[Message], None] = tell_nobody
        self.on_arrival: Arrival = tell_nobody
        self.asleep: set[PeerId] = set()
        self.closed: set[PeerId] = set()
        self.newest = Message(0, b"")
        self._courier = Courier()
        self._transports: dict[Address, MemoryTransport] = {}
        self._ports = itertools.count(1)
        self._serials = itertools.count(1)

    def transport(self, identity: Identity, terms: Terms) -> "MemoryTransport":
        """Return a new transport at an address of its own."""
        address = Address(HOST, next(self._ports))
        transport = MemoryTransport(self, address, identity.peer_id, terms)
        self._transports[address] = transport
        return transport

    def disconnect(self, peer: PeerId) -> None:
        """Let ``peer`` vanish: its links break, and nobody reaches its address again."""
        for address, transport in list(self._transports.items()):
            if transport.peer_id == peer:
                del self._transports[address]
                transport.break_links()

    def break_links(self, one: PeerId, other: PeerId) -> None:
        """Break every link between two peers as a reset does: what is under way between them is lost."""
        for transport in list(self._transports.values()):
            if transport.peer_id in {one, other}:
                transport.break_links({one, other})

    def dial(self, dialler: "MemoryTransport", address: Address, peer: PeerId | None) -> "MemoryLink":
        """Return the dialler's end of a new link; see ``Transport.connect``."""
        listener = self._transports.get(address)
        is_closed = listener is None or listener.peer_id in self.closed
        if listener is None or is_closed or dialler.address not in self._transports:
            raise Unreachable(f"cannot reach {address}: nobody is there")
        if listener is dialler or listener.peer_id == dialler.peer_id:
            raise Unreachable(f"{address} is no peer of ours: it is ourselves")
        if peer is not None and listener.peer_id != peer:
            raise Unreachable(f"{address} is no peer of ours: it is {short(listener.peer_id)}, not {short(peer)}")
        check_terms(dialler.terms, listener.terms)
        return self._join(dialler, listener)

    def _join(self, dialler: "MemoryTransport", listener: "MemoryTransport") -> "MemoryLink":
        serial, there, back = next(self._serials), self._lay(dialler, listener), self._lay(listener, dialler)
        ours = MemoryLink(self, dialler, listener.peer_id, serial, there, back)
        listener.offer(MemoryLink(self, listener, dialler.peer_id, serial, back, there))
        return ours

    def _lay(self, sender: "MemoryTransport", receiver: "MemoryTransport") -> Pipe:
        return Pipe(self._courier, self.on_arrival, sender.peer_id, receiver.peer_id, self.asleep)


class MemoryTransport:
    """See ``Transport``; made by ``MemoryNetwork.transport``. Its traffic is what the messages would cost over TCP."""

    def __init__(self, network: MemoryNetwork, address: Address, peer_id: PeerId, terms: Terms) -> None:
        self.address = address
        self.addresses: tuple[Address, ...] = (address,)
        self.traffic = Traffic()
        self.peer_id = peer_id
        self.terms = terms
        self._network = network
        self._links: dict[MemoryLink, None] = {}
        self._ready, self._accepted = trio.open_memory_channel[MemoryLink](BACKLOG)

    async def connect(self, address: Address, peer: PeerId | None) -> "MemoryLink":
        """See ``Transport.connect``."""
        await trio.lowlevel.checkpoint()
        return self._network.dial(self, address, peer)

    async def accept(self) -> "MemoryLink":
        """See ``Transport.accept``."""
        return await self._accepted.receive()

    def offer(self, link: "MemoryLink") -> None:
        """Queue a link for ``accept``."""
        try:
            self._ready.send_nowait(link)
        except trio.WouldBlock:
            link.end()
            raise Unreachable(f"{self.address} accepts nobody at the moment") from None

    def hold(self, link: "MemoryLink") -> None:
        """Remember an open link."""
        self._links[link] = None

    def release(self, link: "MemoryLink") -> None:
        """Forget a link that ended."""
        self._links.pop(link, None)

    def break_links(self, peers: Collection[PeerId] | None = None) -> None:
        """End every link, or those to some peers."""
        for link in list(self._links):
            if peers is None or link.peer in peers:
                link.end()


class MemoryLink:
    """See ``Link``."""

    def __init__(
        self,
        network: MemoryNetwork,
        owner: MemoryTransport,
        peer: PeerId,
        serial: int,
        outgoing: Pipe,
        incoming: Pipe,
    ) -> None:
        self.peer = peer
        self.serial = serial
        self.host = HOST
        self._network = network
        self._owner = owner
        self._me, self._traffic = owner.peer_id, owner.traffic
        self._outgoing = outgoing
        self._incoming = incoming
        owner.hold(self)

    async def send(self, kind: int, head: bytes, payload: memoryview | None = None) -> None:
        """See ``Link.send``."""
        check_message(kind, head, payload)
        await self._outgoing.wait_room()
        # Room may come together with the cancellation, after which a payload is not ours to read.
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.send_now(kind, head, payload):
            raise ConnectionLost(f"the link to {short(self.peer)} is closed")

    def send_now(self, kind: int, head: bytes, payload: memoryview | None = None) -> bool:
        """See ``Link.send_now``."""
        pipe, network = self._outgoing, self._network
        if not pipe.has_room():
            return False
        if payload is None:
            message = network.newest
            if head is not message.head or kind != message.kind:
                message = network.newest = Message(kind, head)
                network.on_message(message)
            self._traffic.protocol_sent += compute_control_size(len(head))
        else:
            message = Message(kind, head, memoryview(bytes(payload)))
            self._traffic.data_sent += compute_bulk_size(len(head), len(payload))
        delay = network.delivery(self._me, self.peer, message)
        if isinstance(delay, tuple):
            for each in delay:
                pipe.put(message, each)
        elif delay is not None:
            pipe.put(message, delay)
        return True

    async def receive(self, sink: Sink) -> Message:
        """See ``Link.receive``."""
        wanted: list[Message] = []
        while not wanted and (message := await self._incoming.take()) is not None:
            self._accept(sink, wanted.append, message)
        if wanted:
            return wanted[0]
        raise ConnectionLost(f"{short(self.peer)} closed the link")

    async def listen(
        self, sink: Sink, take: Callable[[Message], None], find_pause: Callable[[], float] = never
    ) -> NoReturn:
        """See ``Link.listen``."""
        await self._incoming.listen(partial(self._accept, sink, take))
        raise ConnectionLost(f"{short(self.peer)} closed the link")

    def _accept(self, sink: Sink, take: Callable[[Message], None], message: Message) -> None:
        """Pass the message to ``take``, its payload in the sink's memory, unless the sink refuses it."""
        kind, head, payload = message
        if payload is None:
            self._traffic.protocol_received += compute_control_size(len(head))
            take(message)
        else:
            self._accept_bulk(sink, take, kind, head, payload)

    def _accept_bulk(
        self, sink: Sink, take: Callable[[Message], None], kind: int, head: bytes, payload: memoryview
    ) -> None:
        self._traffic.data_received += compute_bulk_size(len(head), len(payload))
        target = take_target(sink, kind, head, len(payload))
        if target is None:
            return
        memory = find_memory(target)
        for start in range(0, len(payload), len(memory) or 1):
            part = payload[start : start + len(memory)]
            memory[: len(part)] = part
            if isinstance(target, Window):
                target.take(start + len(part))
        take(Message(kind, head, memory))

    def drop_bulk(self, target: memoryview | None) -> None:
        """Do nothing: a payload goes into its sink in one step."""

    def settle(self) -> None:
        """Do nothing: a payload is copied in one step."""

    async def finish(self) -> None:
        """See ``Link.finish``."""
        await trio.lowlevel.checkpoint()
        self._outgoing.finish()

    async def aclose(self) -> None:
        """See ``Link.aclose``."""
        self.end()
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """Be ``aclose`` without a checkpoint."""
        self._outgoing.finish()
        self._incoming.discard()
        self._owner.release(self)
