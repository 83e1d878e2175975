"""The receiving half of a TCP link: frames to messages; large payloads by a worker thread, to where they belong."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from btard.errors import ConnectionLost, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net.eager_socket import SOCKET_ERRORS, EagerSocket
from btard.net.frame_writer import FRAME_SECONDS, THREAD_BYTES, TURN_BYTES
from btard.net.frames import (
    HEADER_SIZE,
    MAX_FRAME,
    MAX_PLAIN,
    TAG_SIZE,
    FrameKey,
    FrameType,
    compute_data_size,
    decode_bulk_start,
    decode_header,
)
from btard.net.link import MAX_CONTROL, Message, Sink, Target, Window, find_memory, never, take_target
from btard.net.traffic import Traffic

SILENCE_SECONDS = 45.0  # a peer that wrote nothing for so long is gone: three pings
BYTES_PER_TURN = 1 << 20  # read in a row before other tasks get their turn
FRAME_COST = BYTES_PER_TURN // 16  # bytes that the smallest frame counts for


@dataclass
class _Incoming:
    """The bulk message being received; ``target`` is None where its bytes are thrown away."""

    kind: int
    head: bytes
    size: int
    target: Target | None
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # held by whoever is at the target

    @property
    def missing(self) -> int:
        return self.size - self.received

    @property
    def is_large(self) -> bool:
        """Whether a thread is to take it; what nobody wants is not worth one."""
        return isinstance(self.target, Window) or (self.target is not None and self.size >= THREAD_BYTES)

    def take(self, key: FrameKey, header: bytes, body: memoryview) -> None:
        """Decrypt the next frame to where it belongs."""
        size = len(body) - TAG_SIZE
        with self.lock:
            target = self.target
            if target is None:
                key.open(header, body)
            else:
                memory = find_memory(target)
                place = self.received % len(memory)
                key.open_into(header, body, memory[place : place + size])
            self.received += size
            if isinstance(target, Window):
                target.take(self.received)

    def drop(self) -> None:
        """Let no more byte into the target: that of the frame under way is waited for, and of no other."""
        self.target = None  # first: a thread is sooner back at the lock than whoever waits for it
        with self.lock:
            pass


class FrameReader:
    """Reads for one link. Memory: one frame, allocated once."""

    def __init__(
        self, sock: EagerSocket, peer: PeerId, key: FrameKey, traffic: Traffic, threads: trio.CapacityLimiter
    ) -> None:
        self.peer = peer
        self._socket, self._key, self._traffic, self._threads = sock, key, traffic, threads
        self._bytes = memoryview(bytearray(MAX_FRAME + HEADER_SIZE))
        self._start = self._end = 0  # those that are unread
        self._bytes_in_turn = 0
        self._parts = bytearray()
        self._incoming: _Incoming | None = None
        self._frame_deadline = self._bulk_deadline = float("inf")

    async def receive(self, sink: Sink, find_pause: Callable[[], float] = never) -> Message:
        """See ``Link.receive``, and ``Link.listen`` for the pauses: one after each frame but those of payloads."""
        while True:
            bulk = self._incoming
            # A thread waits for what is not here: it is lent only where there is a frame for it to begin with.
            if bulk and bulk.is_large and not self._parts and (await self._wait_frame())[0] is FrameType.DATA:
                message = await self._drain(bulk)
            else:
                frame_type, header, body = await self._read_frame()
                message = self._take_frame(frame_type, header, body, sink)
                if frame_type is not FrameType.DATA and (pause_s := find_pause()):
                    await trio.sleep(pause_s)
            if message is not None:
                return message

    def drop_bulk(self, target: memoryview | None) -> None:
        """See ``Link.drop_bulk``; None for whatever is being received."""
        bulk = self._incoming
        if bulk is not None and bulk.target is not None and (target is None or target is find_memory(bulk.target)):
            bulk.drop()

    # --- in a thread

    async def _drain(self, bulk: _Incoming) -> Message | None:
        """Take data frames as long as they come; return the message if that was all of it."""
        begun = bulk.received
        try:
            with self._socket.lent():
                await trio.to_thread.run_sync(self._take_data_frames, bulk, limiter=self._threads)
        except SOCKET_ERRORS as error:
            raise self._explain(error) from None
        finally:
            self._bytes_in_turn = 0
            self._traffic.count_received(compute_data_size(bulk.received - begun), is_data=True)
        return self._note_received(bulk, begun)

    def _take_data_frames(self, bulk: _Incoming) -> None:
        """Take what comes while it is the next data frame of this message; leave everything else to the event loop."""
        limit = min(bulk.size, bulk.received + TURN_BYTES)
        while bulk.received < limit and bulk.target is not None:
            trio.from_thread.check_cancelled()
            size = HEADER_SIZE + min(MAX_PLAIN, bulk.missing) + TAG_SIZE
            self._move_to_front()
            if self._end < size:
                self._end += self._socket.receive_blocking(self._bytes[self._end : size]) or 0
            header = bytes(self._bytes[: min(HEADER_SIZE, self._end)])
            if len(header) == HEADER_SIZE and not self._is_next(header, size - HEADER_SIZE):
                return
            if self._end < size:  # it comes slowly: the event loop waits for the rest, which no drip may make us do
                return
            self._start, self._frame_deadline = size, float("inf")
            bulk.take(self._key, header, self._bytes[HEADER_SIZE:size])

    def _is_next(self, header: bytes, size: int) -> bool:
        """Return whether this is a data frame.

        Raises:
            RemoteProtocolError: it is one of another size.
        """
        frame_type, found = decode_header(header)
        if frame_type is FrameType.DATA and found != size:
            raise RemoteProtocolError("a data frame is out of place")
        return frame_type is FrameType.DATA

    # --- frames

    async def _wait_frame(self) -> tuple[FrameType, int, bytes]:
        """Return (type, size, header) of the next frame once all of it is here."""
        if self._end - self._start < HEADER_SIZE:
            await self._fill(HEADER_SIZE, 0)
        header = bytes(self._bytes[self._start : self._start + HEADER_SIZE])
        frame_type, size = decode_header(header)
        if self._end - self._start < HEADER_SIZE + size:
            await self._fill(HEADER_SIZE + size, HEADER_SIZE)
        return frame_type, size, header

    async def _read_frame(self) -> tuple[FrameType, bytes, memoryview]:
        """Return (type, header, ciphertext) of the next frame, valid until the next call."""
        if self._bytes_in_turn >= BYTES_PER_TURN:
            self._bytes_in_turn = 0
            await trio.lowlevel.checkpoint()
        frame_type, size, header = await self._wait_frame()
        body = self._bytes[self._start + HEADER_SIZE : self._start + HEADER_SIZE + size]
        self._start += HEADER_SIZE + size
        self._frame_deadline = float("inf")
        self._bytes_in_turn += max(size, FRAME_COST)
        self._traffic.count_received(HEADER_SIZE + size, is_data=frame_type.is_data)
        return frame_type, header, body

    def _move_to_front(self) -> None:
        self._bytes[: self._end - self._start] = self._bytes[self._start : self._end]
        self._start, self._end = 0, self._end - self._start

    async def _fill(self, needed: int, already: int) -> None:
        """Read until ``needed`` bytes are unread; a frame begun is complete within FRAME_SECONDS."""
        self._move_to_front()
        # Beyond a large frame only the next header is read, so that what must be moved to the front stays small.
        limit = needed + HEADER_SIZE if already else len(self._bytes)
        while self._end < needed:
            if self._receive_some(limit):
                continue
            if self._end:
                self._frame_deadline = min(self._frame_deadline, trio.current_time() + FRAME_SECONDS)
            silence = min(trio.current_time() + SILENCE_SECONDS, self._bulk_deadline)
            await self._wait_readable(self._frame_deadline if self._end else silence)

    def _receive_some(self, limit: int) -> bool:
        """Read what is here already; return whether that was anything."""
        try:
            count = self._socket.receive_into(self._bytes[self._end : limit])
        except SOCKET_ERRORS as error:
            raise self._explain(error) from None
        if count == 0:
            raise ConnectionLost(f"{short(self.peer)} closed the link")
        self._end += count or 0
        return count is not None

    async def _wait_readable(self, deadline: float) -> None:
        self._bytes_in_turn = 0
        try:
            with trio.move_on_at(deadline) as patience:
                await self._socket.wait_readable()
        except SOCKET_ERRORS as error:
            raise self._explain(error) from None
        if patience.cancelled_caught:
            raise ConnectionLost(f"{short(self.peer)} fell silent")

    def _explain(self, error: Exception) -> ConnectionLost:
        return ConnectionLost(f"the link to {short(self.peer)} broke: {error}")

    # --- messages

    def _take_frame(self, frame_type: FrameType, header: bytes, body: memoryview, sink: Sink) -> Message | None:
        """Return the message that this frame completes, if any."""
        if frame_type is FrameType.DATA:
            return self._take_single(header, body)
        plain = self._key.open(header, body)
        if self._parts and frame_type not in (FrameType.PART, FrameType.CONTROL):
            raise RemoteProtocolError("a control message is interrupted")
        match frame_type:
            case FrameType.CONTROL | FrameType.PART:
                return self._take_control(plain, is_last=frame_type is FrameType.CONTROL)
            case FrameType.BULK:
                return self._take_bulk_start(plain, sink)
            case FrameType.ABORT if self._incoming is not None:
                self._end_bulk()
            case FrameType.PING if not plain:
                pass
            case _:
                raise RemoteProtocolError(f"a frame of type {frame_type} is out of place")
        return None

    def _take_control(self, plain: bytes, *, is_last: bool) -> Message | None:
        if len(self._parts) + len(plain) > 1 + MAX_CONTROL or not plain:
            raise RemoteProtocolError("a control message is too long or empty")
        if not is_last:
            self._parts += plain
            return None
        if self._parts:
            plain = bytes(self._parts) + plain
            self._parts.clear()
        return Message(plain[0], plain[1:])

    def _take_bulk_start(self, plain: bytes, sink: Sink) -> Message | None:
        if self._incoming is not None:
            raise RemoteProtocolError("a bulk message begins inside another")
        kind, head, size = decode_bulk_start(plain)
        self._incoming = _Incoming(kind, head, size, take_target(sink, kind, head, size))
        self._bulk_deadline = trio.current_time() + FRAME_SECONDS
        return self._end_bulk() if size == 0 else None

    def _take_single(self, header: bytes, body: memoryview) -> Message | None:
        bulk = self._incoming
        if bulk is None or len(body) - TAG_SIZE != min(MAX_PLAIN, bulk.missing) or self._parts:
            raise RemoteProtocolError("a data frame is out of place")
        begun = bulk.received
        bulk.take(self._key, header, body)
        return self._note_received(bulk, begun)

    def _note_received(self, bulk: _Incoming, begun: int) -> Message | None:
        """Return the message if all of it is here."""
        if bulk.received > begun:
            self._bulk_deadline = trio.current_time() + FRAME_SECONDS
        return None if bulk.missing else self._end_bulk()

    def _end_bulk(self) -> Message | None:
        """Return the bulk message if all of it arrived and somebody wants it; the next one may begin."""
        bulk, self._incoming = self._incoming, None
        self._bulk_deadline = float("inf")
        if bulk is None or bulk.target is None or bulk.received < bulk.size:
            return None
        return Message(bulk.kind, bulk.head, find_memory(bulk.target))
