"""
All that we hold for one connected peer: its links, what waits to be sent to it, the requests under way.

Most of the time there is one link. There are two if both peers dial at the same moment, or if one of them dials anew
while the other does not know yet that the old link is dead, as after a crash of a machine. Both sides keep the same
one: that with the larger serial, the later one, for a serial is the time by whichever of the two clocks is ahead. Each
side sends on the kept link from the moment it knows both and still reads the other, until it ends: of two that live
nothing is lost. The side that accepted the kept link ends the other one first, for it knows that its peer has both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from btard.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, RequestTimedOut
from btard.identity import PeerId, short
from btard.net.address import find_origin
from btard.net.handlers import BulkHandler, Handlers, Loan
from btard.net.link import MAX_CONTROL, MAX_HEADER, Link, Message, Target
from btard.net.outbox import BulkItem, Outbox, Writer
from btard.net.pace import Pace
from btard.net.requests import (
    REQUEST_OVERHEAD,
    AnswerSink,
    OpenRequests,
    decode_request,
    encode_answer,
    encode_request,
)
from btard.net.turns import hold

REQUEST = 254  # kinds of the hub itself; all below are the protocol's
ANSWER = 255
MAX_LINKS_PER_PEER = 4
MAX_LINKS_PER_STRANGER = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much a hub holds, for all peers and for each."""

    strangers: int = 64  # connected peers that nobody favours and that dialled us
    outbox_messages: int = 4096  # control messages waiting, per peer
    outbox_bytes: int = 32 << 20  # their bytes
    stranger_outbox_bytes: int = 2 << 20  # the same for a stranger: two of the largest answers
    bulk_waiting: int = 64  # bulk messages waiting or under way, per peer
    requests: int = 64  # requests to a peer without an answer
    answers: int = 64  # requests of a peer being answered
    stranger_answers: int = 4  # requests of a stranger being answered
    stranger_frames_per_s: float = 64.0  # frames of a stranger that are no payload; the rest waits on its side
    stranger_frames_at_once: int = 512


@dataclass(eq=False)
class _Lane:
    """A link in use and its place in the order by which both sides keep the same one."""

    link: Link
    is_ours: bool  # we dialled it
    rank: tuple[int, bool]
    ends_first: bool = False  # once retired, we are the side that ends it first
    handler: BulkHandler | None = None  # of the payload being received
    writer: Writer = field(default_factory=Writer)


class Session:
    """One connected peer, from its first link to its last."""

    def __init__(
        self,
        me: PeerId,
        peer: PeerId,
        handlers: Handlers,
        limits: Limits,
        is_stranger: Callable[[PeerId], bool],
        on_end: Callable[["Session"], None],
    ) -> None:
        self.peer = peer
        self._clock = trio.lowlevel.current_clock()
        self.last_heard = self._clock.current_time()
        self._is_stranger = is_stranger
        self._on_end = on_end
        self.reason = "the peer left"
        self._me = me
        self._handlers = handlers
        self._limits = limits
        self._outbox = Outbox(limits.outbox_messages)
        self._requests = OpenRequests()
        self._request_slots = trio.Semaphore(limits.requests)
        self._bulk_slots = trio.Semaphore(limits.bulk_waiting)
        self._pace = Pace(limits.stranger_frames_per_s, limits.stranger_frames_at_once)
        self._answers = set[trio.CancelScope]()
        self._answered = trio.lowlevel.ParkingLot()
        self._lanes: list[_Lane] = []
        self._kept: _Lane | None = None
        self._nursery: trio.Nursery | None = None
        self._ended = trio.Event()

    # --- links

    @property
    def is_dialled(self) -> bool:
        """Whether we made one of the links: nobody else can make us have many such peers."""
        return any(lane.is_ours for lane in self._lanes)

    @property
    def link(self) -> int | None:
        """The serial of the link in use."""
        return self._kept.link.serial if self._kept else None

    @property
    def host(self) -> str:
        """The address that the peer's newest link comes from."""
        return self._lanes[-1].link.host if self._lanes else ""

    @property
    def origin(self) -> str:
        """The network that it belongs to, as far as one can tell: one tenant's addresses give one origin."""
        return find_origin(self.host)

    def adopt(self, link: Link, *, is_ours: bool) -> bool:
        """Use another link to the peer; returns False if there are too many."""
        most = MAX_LINKS_PER_STRANGER if self._is_stranger(self.peer) else MAX_LINKS_PER_PEER
        if len(self._lanes) >= most or self._ended.is_set():
            return False
        if self._kept is None:
            self._requests.scatter(link.serial)
        dialler = self._me if is_ours else self.peer
        lane = _Lane(link, is_ours, (link.serial, dialler == min(self._me, self.peer)))
        self._lanes.append(lane)
        self._kept = max(self._lanes, key=lambda lane: lane.rank)
        self._retire_all_but(self._kept)
        if self._nursery is not None:
            self._nursery.start_soon(self._run_lane, lane)
        return True

    def _retire_all_but(self, kept: _Lane) -> None:
        for lane in self._lanes:
            if lane is not kept and not lane.writer.is_stopped:
                lane.ends_first = not kept.is_ours
                self._outbox.stop(lane.writer)

    async def run(self) -> None:
        """Read, write and answer until ``close`` or until the link in use ends; all links are closed then."""
        try:
            async with trio.open_nursery() as self._nursery:
                for lane in self._lanes:
                    self._nursery.start_soon(self._run_lane, lane)
                await self._ended.wait()
                self._nursery.cancel_scope.cancel()
        finally:
            self.close(self.reason)

    def close(self, reason: str) -> None:
        """End the session; everybody who waits for the peer is released. Idempotent, the first reason stays."""
        if self._ended.is_set():
            return
        self.reason = reason
        self._ended.set()
        self.drop_bulk(None)  # nobody finds this session to say so, and its links end a little later
        self._outbox.close()
        self._requests.fail_all()
        self._on_end(self)

    async def _run_lane(self, lane: _Lane) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, lane)
                await self._read_until_lost(lane)
                nursery.cancel_scope.cancel()
        finally:
            self._lanes.remove(lane)

    async def _read_until_lost(self, lane: _Lane) -> None:
        try:
            await self._read(lane)
        except ConnectionLost as error:
            if not lane.writer.is_stopped:
                self.close(str(error))
        except RemoteProtocolError as error:
            self.close(str(error))
        finally:
            # Writers are shielded while a frame is half written; closing the link releases them.
            await lane.link.aclose()

    # --- writing

    async def _write(self, lane: _Lane) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_bulk, lane)
                await self._write_control(lane)
            if lane.ends_first:
                await lane.link.finish()
        except* ConnectionLost:
            pass  # the reader learns of it as well

    async def _write_control(self, lane: _Lane) -> None:
        while (item := await self._outbox.take_control(lane.writer)) is not None:
            try:
                await lane.link.send(*item)
            finally:
                self._outbox.note_written()

    async def _write_bulk(self, lane: _Lane) -> None:
        while (item := await self._outbox.take_bulk(lane.writer)) is not None:
            try:
                with item.scope:
                    await lane.link.send(item.kind, item.head, item.payload)
            finally:
                item.done.set()

    def send(self, kind: int, head: bytes) -> None:
        """Queue a control message; a full outbox ends the session."""
        if len(head) > MAX_CONTROL:
            raise LocalProtocolError(f"a message of kind {kind} has {len(head)} bytes, too many to send")
        if self._kept is not None and self._outbox.is_idle and self._kept.link.send_now(kind, head):
            return
        limits = self._limits
        room = limits.stranger_outbox_bytes if self._is_stranger(self.peer) else limits.outbox_bytes
        if not self._ended.is_set() and not self._outbox.push(kind, head, room):
            self.close("the outbox is full: the peer takes too little")

    def send_bulk_now(self, kind: int, head: bytes, payload: memoryview) -> bool:
        """Be ``send_bulk`` if nothing has to be waited for; else return False."""
        if self._ended.is_set():
            return True
        return self._kept is not None and not self._outbox.has_bulk and self._kept.link.send_now(kind, head, payload)

    async def send_bulk(self, kind: int, head: bytes, payload: memoryview) -> None:
        """Return once the message was written or the session ended; ``payload`` may then be reused."""
        async with hold(self._bulk_slots):
            if self._ended.is_set():
                return
            item = BulkItem(kind, head, memoryview(payload))
            self._outbox.push_bulk(item)
            try:
                await item.done.wait()
            finally:
                self._outbox.withdraw(item)
                for lane in self._lanes:
                    lane.link.settle()
                item.payload.release()  # a link may take long to end a frame, and keeps no memory by it

    async def lend_bulk(self, kind: int, head: bytes, loan: Loan) -> None:
        """Be ``send_bulk`` until the loan is over."""
        with loan.scope:
            await self.send_bulk(kind, head, loan.payload)

    async def flush(self) -> None:
        """Return once all control messages were written or the session ended."""
        await self._outbox.flush()

    # --- reading

    async def _read(self, lane: _Lane) -> None:
        await lane.link.listen(partial(self._choose_target, lane), partial(self._take, lane), self._find_pause)

    def _find_pause(self) -> float:
        """The seconds for which what the peer sends next may wait: a stranger's frames come at a pace."""
        if self.is_dialled or not self._is_stranger(self.peer):
            return 0.0
        now = self._clock.current_time()
        self._pace.count(None, now)
        return self._pace.find_wait(None, now)

    def _take(self, lane: _Lane, message: Message) -> None:
        self.last_heard = self._clock.current_time()
        kind, head, payload = message
        if payload is not None and lane.handler is not None:
            lane.handler.done(self.peer, head, payload)
        elif (handler := self._handlers.on_control.get(kind)) is not None:
            handler(self.peer, head)
        elif kind == ANSWER:
            self._requests.settle(message)
        elif kind == REQUEST:
            self._begin_answer(head)
        else:
            log.debug("a message of unknown kind was dropped", peer=short(self.peer), kind=kind)

    def _choose_target(self, lane: _Lane, kind: int, head: bytes, size: int) -> Target | None:
        """Return the memory for a payload, None if nobody wants it."""
        lane.handler = None
        if kind == ANSWER:
            return self._requests.choose_target(head, size)
        lane.handler = self._handlers.bulk.get(kind)
        return None if lane.handler is None else lane.handler.sink(self.peer, head, size)

    def drop_bulk(self, target: memoryview | None) -> None:
        """Let no more byte of the peer into ``target``; None for whatever is being received."""
        for lane in self._lanes:
            lane.link.drop_bulk(target)

    # --- requests

    async def request(self, kind: int, body: bytes, timeout_s: float, sink: AnswerSink | None) -> Message:
        """Return the peer's answer; see ``Hub.request``."""
        if len(body) > MAX_CONTROL - REQUEST_OVERHEAD:
            raise LocalProtocolError(f"a request of kind {kind} has {len(body)} bytes, too many to send")
        try:
            with trio.fail_after(timeout_s):
                async with hold(self._request_slots):
                    return await self._ask(kind, body, sink)
        except trio.TooSlowError:
            raise RequestTimedOut(f"{short(self.peer)} did not answer within {timeout_s:g} s") from None

    async def _ask(self, kind: int, body: bytes, sink: AnswerSink | None) -> Message:
        request = self._requests.begin(kind, sink)
        try:
            self.send(REQUEST, encode_request(request.number, kind, body))
            if not self._ended.is_set():
                await request.settled.wait()
        finally:
            self._requests.end(request)
            if request.target is not None:
                self.drop_bulk(request.target)  # the memory is its owner's again
        if request.is_refused:
            raise RequestTimedOut(f"the answer of {short(self.peer)} was refused")
        if request.answer is None:
            raise ConnectionLost(f"the link to {short(self.peer)} ended: {self.reason}")
        return request.answer

    def _begin_answer(self, head: bytes) -> None:
        """Start a task that answers; a peer that asks for too much at once gets no answer."""
        number, kind, body = decode_request(head)
        limits = self._limits
        most = limits.stranger_answers if self._is_stranger(self.peer) else limits.answers
        if len(self._answers) >= most or self._nursery is None:
            log.debug("a request was dropped", peer=short(self.peer), kind=kind, answering=len(self._answers))
            return
        scope = trio.CancelScope()
        self._answers.add(scope)
        self._nursery.start_soon(self._answer, scope, kind, number, body)

    async def _answer(self, scope: trio.CancelScope, kind: int, number: int, body: bytes) -> None:
        try:
            with scope:
                await self._try_answer(kind, number, body)
        except RemoteProtocolError as error:
            self.close(str(error))
        finally:
            self._answers.remove(scope)
            self._answered.unpark_all()

    async def _try_answer(self, kind: int, number: int, body: bytes) -> None:
        handler = await self._handlers.serve.find(kind)
        if handler is None:
            log.debug("a request of unknown kind was dropped", peer=short(self.peer), kind=kind)
            return
        answer, loan = await handler(self.peer, body)
        head = encode_answer(number, answer)
        if len(head) > (MAX_CONTROL if loan is None else MAX_HEADER):
            log.warning("an answer is too long: it is left empty", peer=short(self.peer), kind=kind, size=len(head))
            head, loan = encode_answer(number, b""), None
        if loan is None:
            self.send(ANSWER, head)
        else:
            await self.lend_bulk(ANSWER, head, loan)

    async def give_up_answers(self) -> None:
        """Return once what the peer asked so far is being answered no more; what it asks meanwhile waits for nobody."""
        asked = set(self._answers)
        for scope in asked:
            scope.cancel()
        while asked & self._answers:
            await self._answered.park()
