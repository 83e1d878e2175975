"""The hub: a peer's links to all the others, and the one place where their messages meet the protocol."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import structlog
import trio

from btard.errors import ConnectionLost, LocalProtocolError, Unreachable
from btard.identity import PeerId, short
from btard.net.address import Address, find_busiest
from btard.net.handlers import BulkHandler, ControlHandler, Handlers, Loan, RequestHandler
from btard.net.link import Link, Message, Transport, check_message
from btard.net.requests import AnswerSink
from btard.net.session import REQUEST, Limits, Session
from btard.net.traffic import Traffic

log = structlog.get_logger(__name__)


class Hub:
    """One per peer. Nothing that another peer sends ends it; a handler may raise RemoteProtocolError to end that link.

    Kinds are 0 to 253, separate for control, bulk and requests; messages of kinds without a handler are dropped.

    Whoever we neither dialled nor favour is a stranger: strangers have ``Limits.strangers`` places among
    themselves, where the least active one of the origin that has most gives way to a newcomer, are answered less and
    read at a pace. So however many they are, there is room for everybody else.
    """

    def __init__(self, transport: Transport, me: PeerId, limits: Limits | None = None) -> None:
        self.me = me
        self.on_connected: Callable[[PeerId], None] = lambda _peer: None
        self.on_lost: Callable[[PeerId], None] = lambda _peer: None
        self._transport = transport
        self._limits = limits or Limits()
        self._handlers = Handlers()
        self._sessions: dict[PeerId, Session] = {}
        self._running = dict[Session, None]()  # those that end have tasks for a little longer
        self._favours: list[Callable[[PeerId], bool]] = []
        self._dialling: dict[Address, trio.Lock] = {}
        self._changed, self._lost = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._is_leaving = False

    @property
    def on_control(self) -> dict[int, ControlHandler]:
        """Synchronous handlers of control messages, called as (peer, head)."""
        return self._handlers.on_control

    @property
    def bulk(self) -> dict[int, BulkHandler]:
        """Handlers of bulk messages."""
        return self._handlers.bulk

    @property
    def serve(self) -> dict[int, RequestHandler]:
        """Handlers of requests, called as (peer, body), each in a task of its own; they return (body, loan).

        A request that comes a little earlier than its handler waits for it.
        """
        return self._handlers.serve

    def favour(self, is_favoured: Callable[[PeerId], bool]) -> None:
        """Let those for whom ``is_favoured`` is true, now or later, be no strangers; it bounds how many they are."""
        self._favours.append(is_favoured)

    def is_stranger(self, peer: PeerId) -> bool:
        """Return whether nobody favours ``peer``."""
        return not any(is_favoured(peer) for is_favoured in self._favours)

    @property
    def traffic(self) -> Traffic:
        """Bytes sent and received so far."""
        return self._transport.traffic

    @property
    def connected(self) -> frozenset[PeerId]:
        """The peers to whom there is a link."""
        return frozenset(self._sessions)

    def is_connected(self, peer: PeerId) -> bool:
        """Return whether there is a link to ``peer``."""
        return peer in self._sessions

    def find_link(self, peer: PeerId) -> int | None:
        """Return the number of the link to ``peer`` that is in use, another one for each; None without a link."""
        session = self._sessions.get(peer)
        return session.link if session else None

    def find_host(self, peer: PeerId) -> str:
        """Return the literal address that the newest link of ``peer`` comes from; empty without a link."""
        session = self._sessions.get(peer)
        return session.host if session else ""

    async def wait_connected(self, peers: Collection[PeerId]) -> None:
        """Return once there is a link to each of ``peers`` at the same time."""
        while not all(peer in self._sessions for peer in peers):
            await self._changed.park()

    async def wait_lost(self, peer: PeerId) -> None:
        """Return once there is no link to ``peer``."""
        while peer in self._sessions:
            await self._lost.park()

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Let a run put its handlers here: afterwards they are gone, and none of them is at work for anybody."""
        told = self.on_connected, self.on_lost
        try:
            with self._handlers.lent():
                yield
        finally:
            self.on_connected, self.on_lost = told
            with trio.CancelScope(shield=True):
                for session in list(self._running):
                    await session.give_up_answers()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept links and serve all of them, until cancelled; every link is closed then."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                try:
                    await self._accept_all()
                finally:
                    self._is_leaving = True
        finally:
            self._nursery = None

    async def _accept_all(self) -> None:
        while True:
            link = await self._transport.accept()
            if not self._adopt(link, is_ours=False):
                await link.aclose()

    async def connect(self, peer: PeerId | None, address: Address) -> PeerId:
        """Return the peer at ``address`` once there is a link to it, made if there was none.

        Args:
            peer: whom we want, or None for whoever answers.
            address: where it listens.

        Raises:
            Unreachable: nobody answers there, or somebody else.
            Refused: it belongs to another run or configuration.
        """
        lock = self._dialling.setdefault(address, trio.Lock())
        try:
            async with lock:
                if peer is not None and peer in self._sessions:
                    return peer
                return await self._dial(peer, address)
        finally:
            if not lock.locked():
                self._dialling.pop(address, None)

    async def _dial(self, peer: PeerId | None, address: Address) -> PeerId:
        link = await self._transport.connect(address, peer)
        if not self._adopt(link, is_ours=True):
            await link.aclose()
            raise Unreachable(f"we have no place for a link to {short(link.peer)}")
        return link.peer

    def _adopt(self, link: Link, *, is_ours: bool) -> bool:
        """Take a new link into use; returns False if it is not wanted."""
        if self._nursery is None or self._is_leaving:
            return False
        session = self._sessions.get(link.peer)
        if session is not None:
            if is_adopted := session.adopt(link, is_ours=is_ours):
                self.on_connected(link.peer)  # what was written to a link before may be lost
            return is_adopted
        if not is_ours and self.is_stranger(link.peer):
            self._make_room()
        self._begin_session(link, self._nursery, is_ours=is_ours)
        return True

    def _make_room(self) -> None:
        """End the link to a stranger where there are as many as may be."""
        if len(self._sessions) < self._limits.strangers:
            return
        strangers = [item for item in self._sessions.values() if not item.is_dialled and self.is_stranger(item.peer)]
        if len(strangers) >= self._limits.strangers:
            busiest = find_busiest(item.origin for item in strangers)
            idlest = min((item for item in strangers if item.origin == busiest), key=lambda item: item.last_heard)
            idlest.close("it had to give way to another stranger")

    def _begin_session(self, link: Link, nursery: trio.Nursery, *, is_ours: bool) -> None:
        session = Session(self.me, link.peer, self._handlers, self._limits, self.is_stranger, self._forget)
        session.adopt(link, is_ours=is_ours)
        self._sessions[link.peer] = session
        log.info("a link was made", peer=short(link.peer), dialled=is_ours)
        self._running[session] = None
        nursery.start_soon(self._live, session)
        self.on_connected(link.peer)
        self._changed.unpark_all()

    async def _live(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            del self._running[session]

    def _forget(self, session: Session) -> None:
        del self._sessions[session.peer]
        self._lost.unpark_all()
        if not self._is_leaving:
            log.info("a link was lost", peer=short(session.peer), reason=session.reason)
            self.on_lost(session.peer)

    def close(self, peer: PeerId, reason: str) -> None:
        """End the link to ``peer`` at once, if there is one; what waits to be sent is lost."""
        session = self._sessions.get(peer)
        if session is not None:
            session.close(reason)

    def send(self, peer: PeerId, kind: int, head: bytes) -> None:
        """Queue a control message and return at once; without a link nothing happens.

        If too much waits already, the link is closed: a peer that does not read must not fill our memory.
        """
        _check_kind(kind)
        session = self._sessions.get(peer)
        if session is not None:
            session.send(kind, head)

    async def send_bulk(self, peer: PeerId, kind: int, head: bytes, payload: memoryview) -> None:
        """Return once the message was written to the link, or there is no link; ``payload`` may then be reused.

        Cancelled, it returns at once, and the receiver forgets what it has of the message.
        """
        _check_kind(kind)
        check_message(kind, head, payload)
        session = self._sessions.get(peer)
        if session is not None:
            await session.send_bulk(kind, head, payload)

    def offer_bulk(self, peer: PeerId, kind: int, head: bytes, loan: Loan) -> None:
        """Be ``send_bulk`` until the loan is over, and let nobody wait; what is lent is not reused."""
        _check_kind(kind)
        check_message(kind, head, loan.payload)
        session = self._sessions.get(peer)
        if session is None or session.send_bulk_now(kind, head, loan.payload) or self._nursery is None:
            return
        self._nursery.start_soon(session.lend_bulk, kind, head, loan)

    def drop_bulk(self, peer: PeerId, target: memoryview) -> None:
        """Let no more byte of ``peer`` into ``target``, which a sink gave: the memory is its owner's again."""
        session = self._sessions.get(peer)
        if session is not None:
            session.drop_bulk(target)

    async def flush(self) -> None:
        """Return once every control message queued so far was written, or its link ended."""
        for session in list(self._sessions.values()):
            await session.flush()

    async def request(
        self, peer: PeerId, kind: int, body: bytes, *, timeout_s: float, sink: AnswerSink | None = None
    ) -> Message:
        """Return the peer's answer: its body as ``head``, and its payload if it has one.

        Args:
            peer: whom to ask.
            kind: the key of its handler in ``serve``.
            body: what it asks.
            timeout_s: seconds to wait, the wait for a free slot included.
            sink: gives the memory for a payload; without it an answer with a payload ends the link.

        Raises:
            RequestTimedOut: no answer came in time, or ``sink`` refused it.
            ConnectionLost: there is no link, or it ended.
        """
        _check_kind(kind)
        session = self._sessions.get(peer)
        if session is None:
            raise ConnectionLost(f"there is no link to {short(peer)}")
        return await session.request(kind, body, timeout_s, sink)


def _check_kind(kind: int) -> None:
    if not 0 <= kind < REQUEST:
        raise LocalProtocolError(f"message kind {kind} is not in 0..{REQUEST - 1}")
