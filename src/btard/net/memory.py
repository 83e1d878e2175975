"""Links within one process, for simulations and tests: whole messages, no encryption, faults on request."""

import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from btard.errors import ConnectionLost, Unreachable
from btard.identity import Identity, PeerId, short
from btard.net.address import Address
from btard.net.frames import compute_bulk_size, compute_control_size
from btard.net.link import Message, Sink, check_message, take_target
from btard.net.terms import Terms, check_terms
from btard.net.traffic import Traffic

HOST = "memory"
PIPE_MESSAGES = 1024  # messages under way in one direction of a link; its sender then waits
MESSAGES_PER_TURN = 16  # messages received in a row before other tasks get their turn
BACKLOG = 64  # links dialled and not yet accepted

Delivery = Callable[[PeerId, PeerId, Message], float | None]
"""Given (sender, receiver, message), returns the delay in seconds of virtual time, None to lose the message."""


def deliver_at_once(_sender: PeerId, _receiver: PeerId, _message: Message) -> float | None:
    """Be the network without faults."""
    return 0.0


class MemoryNetwork:
    """All the transports of one process that can reach each other."""

    def __init__(self, delivery: Delivery = deliver_at_once) -> None:
        self.delivery = delivery
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

    def dial(self, dialler: "MemoryTransport", address: Address, peer: PeerId | None) -> "MemoryLink":
        """Return the dialler's end of a new link; see ``Transport.connect``."""
        listener = self._transports.get(address)
        if listener is None or dialler.address not in self._transports:
            raise Unreachable(f"cannot reach {address}: nobody is there")
        if listener is dialler or listener.peer_id == dialler.peer_id:
            raise Unreachable(f"{address} is no peer of ours: it is ourselves")
        if peer is not None and listener.peer_id != peer:
            raise Unreachable(f"{address} is no peer of ours: it is {short(listener.peer_id)}, not {short(peer)}")
        check_terms(dialler.terms, listener.terms)
        return self._join(dialler, listener)

    def _join(self, dialler: "MemoryTransport", listener: "MemoryTransport") -> "MemoryLink":
        serial, there, back = next(self._serials), _Pipe(), _Pipe()
        ours = MemoryLink(self, dialler, listener.peer_id, serial, there, back)
        listener.offer(MemoryLink(self, listener, dialler.peer_id, serial, back, there))
        return ours


class MemoryTransport:
    """See ``Transport``; made by ``MemoryNetwork.transport``. Its traffic is what the messages would cost over TCP."""

    def __init__(self, network: MemoryNetwork, address: Address, peer_id: PeerId, terms: Terms) -> None:
        self.address = address
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

    def break_links(self) -> None:
        """End every link."""
        for link in list(self._links):
            link.end()


class MemoryLink:
    """See ``Link``."""

    def __init__(
        self,
        network: MemoryNetwork,
        owner: MemoryTransport,
        peer: PeerId,
        serial: int,
        outgoing: "_Pipe",
        incoming: "_Pipe",
    ) -> None:
        self.peer = peer
        self.serial = serial
        self._network = network
        self._owner = owner
        self._outgoing = outgoing
        self._incoming = incoming
        self._messages_in_turn = 0
        owner.hold(self)

    async def send(self, kind: int, head: bytes, payload: memoryview | None = None) -> None:
        """See ``Link.send``."""
        check_message(kind, head, payload)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._outgoing.wait_room()
        if self._outgoing.is_finished:
            raise ConnectionLost(f"the link to {short(self.peer)} is closed")
        message = Message(kind, head, None if payload is None else memoryview(bytes(payload)))
        self._owner.traffic.count_sent(_compute_size(message), is_data=payload is not None)
        delay = self._network.delivery(self._owner.peer_id, self.peer, message)
        if delay is not None:
            self._outgoing.put(message, delay)

    async def receive(self, sink: Sink) -> Message:
        """See ``Link.receive``."""
        while True:
            message = await self._next_message()
            self._owner.traffic.count_received(_compute_size(message), is_data=message.payload is not None)
            if message.payload is None:
                return message
            target = take_target(sink, message.kind, message.head, len(message.payload))
            if target is not None:
                target[:] = message.payload
                return Message(message.kind, message.head, target)

    async def _next_message(self) -> Message:
        self._messages_in_turn = (self._messages_in_turn + 1) % MESSAGES_PER_TURN
        if self._messages_in_turn == 0:
            await trio.lowlevel.checkpoint()
        message = await self._incoming.take()
        if message is None:
            raise ConnectionLost(f"{short(self.peer)} closed the link")
        return message

    def drop_bulk(self, target: memoryview) -> None:
        """Do nothing: a payload goes into its sink in one step."""

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


@dataclass
class _Lane:
    """The messages of one class, control or bulk, each with the time at which it arrives."""

    waiting: deque[tuple[float, Message]]
    newest: float = 0.0

    @property
    def next_arrival(self) -> float:
        """The time at which the first message arrives, infinity without any."""
        return self.waiting[0][0] if self.waiting else math.inf


class _Pipe:
    """One direction of a link. Each lane keeps its order; what arrived as control goes before what arrived as bulk."""

    def __init__(self) -> None:
        self.is_finished = False
        self._control = _Lane(deque())
        self._bulk = _Lane(deque())
        self._reader = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    async def wait_room(self) -> None:
        """Return once another message fits, or the pipe ended."""
        while not self.is_finished and self._count() >= PIPE_MESSAGES:
            await self._writers.park()

    def put(self, message: Message, delay: float) -> None:
        """Add a message that arrives after ``delay`` seconds, and after its predecessors."""
        lane = self._control if message.payload is None else self._bulk
        lane.newest = max(lane.newest, trio.current_time() + delay)
        lane.waiting.append((lane.newest, message))
        if self._reader:
            self._reader.unpark()

    async def take(self) -> Message | None:
        """Return the next message to arrive, None once the sender finished and all is taken."""
        while True:
            now = trio.current_time()
            for lane in (self._control, self._bulk):
                if lane.next_arrival <= now:
                    if self._writers:
                        self._writers.unpark()
                    return lane.waiting.popleft()[1]
            if self.is_finished and not self._count():
                return None
            if self._count():
                with trio.move_on_at(min(self._control.next_arrival, self._bulk.next_arrival)):
                    await self._reader.park()
            else:
                await self._reader.park()

    def finish(self) -> None:
        """Let nothing more in."""
        self.is_finished = True
        self._reader.unpark_all()
        self._writers.unpark_all()

    def discard(self) -> None:
        """Let nothing more in and throw away what waits."""
        self._control.waiting.clear()
        self._bulk.waiting.clear()
        self.finish()

    def _count(self) -> int:
        return len(self._control.waiting) + len(self._bulk.waiting)


def _compute_size(message: Message) -> int:
    """Return the bytes that the message would take over TCP."""
    if message.payload is None:
        return compute_control_size(len(message.head))
    return compute_bulk_size(len(message.head), len(message.payload))
