"""
One node's side of every exchange: `kademlia`'s protocol and routing table, with signed datagrams.

Rules of this file

1. No datagram raises. The event loop would end the whole program for one malformed packet.
2. Size, magic, run, identity work, destination, clock and rate are checked before a signature, a
   signature before the body is decoded.
3. A node enters the routing table only by answering a question of ours, at the address we asked,
   with the key and the identity work that its id is the digest of. A request alone, which may be replayed or carry a
   forged source, only makes us ask. `table` says who of them has a place.
4. A question ends within `ANSWER_SECONDS`, answered or not; cancelling it leaves nothing behind.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from btard.dht.blocks import block_of
from btard.dht.datagram import (
    ANYONE,
    MAX_CLOCK_SKEW_MS,
    MAX_DATAGRAM_BYTES,
    MESSAGE_ID_SIZE,
    Header,
    IdentityWork,
    Kind,
    body_of,
    is_authentic,
    node_id_of,
    read_header,
    sign_datagram,
)
from btard.dht.limits import DeadNodes, RequestLimit, plausible_host
from btard.dht.messages import (
    BUCKET_SIZE,
    Answer,
    Entries,
    FindNode,
    FindRecord,
    FoundNodes,
    FoundRecord,
    Ping,
    Pong,
    Request,
    Store,
    Stored,
    decode_answer,
    decode_request,
    encode_body,
)
from btard.dht.storage import RecordStorage
from btard.dht.table import NodeTable
from btard.identity import Identity
from btard.identity.work import is_identity_worked

ANSWER_SECONDS = 1.0
RESEND_SECONDS = 0.5
"""After this long the same datagram is sent once more; requests may safely arrive twice."""
MAX_PROBES = 32
MAX_QUESTIONS = 1024
MAX_UNSENT_BYTES = 1 << 20

Address = tuple[str, int]
log = logging.getLogger("btard.dht")


@dataclass(frozen=True)
class _Question:
    """A request on its way: to whom (``None``: whoever is there), and the future that its answer resolves."""

    address: Address
    node_id: bytes | None
    answer: "asyncio.Future[tuple[Node, Answer] | None]"


class HardenedProtocol(KademliaProtocol):  # type: ignore[misc]  # kademlia has no types
    """`KademliaProtocol` in which every datagram is signed, typed and bounded.

    ``own_addresses`` are addresses at which we met ourselves: a bootstrap list may name us.
    """

    def __init__(
        self,
        identity: Identity,
        work: IdentityWork,
        run_id: bytes,
        storage: RecordStorage,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(Node(node_id_of(run_id, identity.peer_id, work.nonce)), storage, BUCKET_SIZE)
        self.table = self.router = NodeTable(self, self.source_node)
        self._identity, self._work, self._run_id, self._now_ms = identity, work, run_id, now_ms
        self._questions: dict[bytes, _Question] = {}
        self._probes: dict[bytes, asyncio.Task[None]] = {}
        self._now = asyncio.get_running_loop().time
        self._limit = RequestLimit(self._now())
        self._dead = DeadNodes()
        self.own_addresses: set[Address] = set()

    def __getattr__(self, name: str) -> Any:
        # The base class turns any unknown attribute into a remote call.
        raise AttributeError(name)

    # What arrives

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Handle one packet from anyone; never raises."""
        try:
            header = read_header(self._run_id, data)
            if header is None or not is_identity_worked(header.sender, header.identity_nonce, self._work.bits):
                return
            receive = self._receive_request if header.kind is Kind.REQUEST else self._receive_answer
            receive(header, data, (addr[0], addr[1]))
        except Exception:  # a bug here must not let one packet end the program
            log.exception("dropped a datagram from %s", addr)

    def _receive_request(self, header: Header, data: bytes, address: Address) -> None:
        if header.sender == self._identity.peer_id:
            self._meet_ourselves(header.message_id)
            return
        if header.destination not in (self.source_node.id, ANYONE):
            return
        node = Node(node_id_of(self._run_id, header.sender, header.identity_nonce), *address)
        if abs(header.sent_ms - self._now_ms()) > MAX_CLOCK_SKEW_MS:
            return
        if not self._limit.allows(address, self._now(), is_known=self.table.holds(node)):
            return
        if not is_authentic(self._run_id, header, data):
            return
        request = decode_request(body_of(data))
        if request is None or (header.destination == ANYONE and not isinstance(request, Ping)):
            return
        self._send(Kind.ANSWER, node.id, address, header.message_id, self._answer(request, node))
        self.welcome_if_new(node)

    def _answer(self, request: Request, asker: Node) -> Answer:
        match request:
            case FindNode(key):
                return FoundNodes(self._entries_near(key, asker))
            case FindRecord(key):
                return FoundRecord(self.storage.get(key), self._entries_near(key, asker))
            case Store(key, record):
                return Stored(self.storage.put(key, record, block_of(asker.ip, asker.port)))
            case Ping():
                return Pong()

    def _receive_answer(self, header: Header, data: bytes, address: Address) -> None:
        question = self._questions.get(header.message_id)
        if question is None or question.address != address or header.destination != self.source_node.id:
            return
        node = Node(node_id_of(self._run_id, header.sender, header.identity_nonce), *address)
        if question.node_id not in (node.id, None) or not is_authentic(self._run_id, header, data):
            return
        answer = decode_answer(body_of(data))
        if not question.answer.done():
            question.answer.set_result(None if answer is None else (node, answer))

    def _meet_ourselves(self, message_id: bytes) -> None:
        """Note the address of a question of ours that came back to us; another's copy of our key is ignored."""
        question = self._questions.get(message_id)
        if question is not None and not question.answer.done():
            self.own_addresses.add(question.address)
            question.answer.set_result(None)

    # What we ask

    async def ping_address(self, address: Address) -> Node | None:
        """Return the node that answers at ``address``, now in the routing table, or ``None``."""
        reply = await self._ask(None, address, Ping())
        if reply is None or not isinstance(reply[1], Pong):
            return None
        self._note_alive(reply[0])
        return reply[0]

    async def call_ping(self, node_to_ask: Node) -> bool:
        """Return whether the node answers; it stays in the routing table or leaves it accordingly."""
        return isinstance(await self._ask_node(node_to_ask, Ping()), Pong)

    async def call_find_node(self, node_to_ask: Node, node_to_find: Node) -> list[Node] | None:
        """Return the nodes that ``node_to_ask`` knows closest to ``node_to_find``, or ``None`` without an answer."""
        answer = await self._ask_node(node_to_ask, FindNode(node_to_find.id))
        return self._nodes_in(answer.nodes, node_to_ask) if isinstance(answer, FoundNodes) else None

    async def call_find_value(self, node_to_ask: Node, node_to_find: Node) -> tuple[bytes | None, list[Node]] | None:
        """Return the record, unchecked, that ``node_to_ask`` holds and the nodes it knows, or ``None``."""
        answer = await self._ask_node(node_to_ask, FindRecord(node_to_find.id))
        if not isinstance(answer, FoundRecord):
            return None
        return answer.record, self._nodes_in(answer.nodes, node_to_ask)

    async def call_store(self, node_to_ask: Node, key: bytes, value: bytes) -> bool:
        """Return whether ``node_to_ask`` says that it holds this record or a newer one."""
        answer = await self._ask_node(node_to_ask, Store(key, value))
        return isinstance(answer, Stored) and answer.accepted

    async def _ask_node(self, node: Node, request: Request) -> Answer | None:
        """Return the node's answer and note that it lives, or ``None``: silent, or lately found silent."""
        if self._is_dead(node):
            self.table.forget(node)
            return None
        reply = await self._ask(node.id, (node.ip, node.port), request)
        if reply is None:
            self._dead.failed(tuple(node), self._now())
            self.table.forget(node)
            return None
        if not isinstance(reply[1], Pong):
            self._dead.answered(tuple(node))
        self._note_alive(node)
        return reply[1]

    async def _ask(self, node_id: bytes | None, address: Address, request: Request) -> tuple[Node, Answer] | None:
        """Return who answered and what, or ``None`` after `ANSWER_SECONDS`."""
        if len(self._questions) >= MAX_QUESTIONS:
            return None
        message_id = os.urandom(MESSAGE_ID_SIZE)
        question = _Question(address, node_id, asyncio.get_running_loop().create_future())
        self._questions[message_id] = question
        try:
            for seconds in (RESEND_SECONDS, ANSWER_SECONDS - RESEND_SECONDS):
                self._send(Kind.REQUEST, node_id or ANYONE, address, message_id, request)
                done, _ = await asyncio.wait({question.answer}, timeout=seconds)
                if done:
                    return question.answer.result()
            return None
        finally:
            del self._questions[message_id]

    def _send(self, kind: Kind, node_id: bytes, address: Address, message_id: bytes, body: Request | Answer) -> None:
        """Send one packet, or drop it when it is too long or the socket is closed or clogged."""
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return
        header = Header(kind, node_id, message_id, self._now_ms(), self._identity.peer_id, self._work.nonce)
        datagram = sign_datagram(self._identity, self._run_id, header, encode_body(body))
        if len(datagram) <= MAX_DATAGRAM_BYTES:
            transport.sendto(datagram, address)

    # Who is in the routing table

    def welcome_if_new(self, node: Node) -> None:
        """Ask a node that we do not know at its address to prove that it is there; bounded by `MAX_PROBES`."""
        if self.table.knows(node) or self._is_dead(node):
            return
        if self.table.may_come_in(node):
            self._probe(node)

    def _probe(self, node: Node) -> None:
        """Ask ``node`` whether it lives, later; nothing when it is being asked or too many are."""
        if node.id not in self._probes and len(self._probes) < MAX_PROBES:
            task = asyncio.ensure_future(self._ask_for_life(node))
            self._probes[node.id] = task
            task.add_done_callback(lambda _: self._probes.pop(node.id, None))

    async def _ask_for_life(self, node: Node) -> None:
        """Admit ``node`` if it answers, unless the same node still answers where we knew it."""
        known = self.table.entry(node.id)
        if known is None or known.same_home_as(node) or not await self.call_ping(known):
            await self.call_ping(node)

    def _note_alive(self, node: Node) -> None:
        self._dead.alive(tuple(node))
        doubtful = self.table.admit(node, self._now())
        if doubtful is not None:
            self._probe(doubtful)

    def _is_dead(self, node: Node) -> bool:
        return self._dead.is_dead(tuple(node), self._now())

    def _entries_near(self, key: bytes, asker: Node) -> Entries:
        return tuple((node.id, node.ip, node.port) for node in self.table.closest(Node(key), asker))

    def _nodes_in(self, entries: Iterable[tuple[bytes, str, int]], told_by: Node) -> list[Node]:
        """Return the nodes of an answer that may live and are not us, with addresses in normal form."""
        hosts = [(node_id, plausible_host(host, told_by.ip), port) for node_id, host, port in entries]
        nobody = (self.source_node.id, ANYONE)
        nodes = [Node(node_id, host, port) for node_id, host, port in hosts if host and node_id not in nobody]
        return [node for node in nodes if not self._is_dead(node)]
