"""A link over a TCP socket, after its handshake: frames in both directions, bulk bytes decrypted where they belong."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import trio

from btard.errors import ConnectionLost, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net.eager_socket import SOCKET_ERRORS, EagerSocket
from btard.net.frames import (
    HEADER_SIZE,
    MAX_FRAME,
    MAX_PLAIN,
    TAG_SIZE,
    FrameKey,
    FrameType,
    decode_bulk_start,
    decode_header,
    encode_bulk_start,
)
from btard.net.link import MAX_CONTROL, Message, Sink, check_message, take_target
from btard.net.traffic import Traffic

FRAME_SECONDS = 30.0  # a frame, once begun, is complete within; so is the pause inside a bulk message
PING_SECONDS = 15.0  # we write at least this often
SILENCE_SECONDS = 45.0  # a peer that wrote nothing for so long is gone: three pings
BYTES_PER_TURN = 1 << 20  # written or read in a row before other tasks get their turn
FRAME_COST = BYTES_PER_TURN // 16  # bytes that the smallest frame counts for


@dataclass
class _Incoming:
    """The bulk message being received; ``target`` is None where its bytes are thrown away."""

    kind: int
    head: bytes
    size: int
    target: memoryview | None
    received: int = 0


class TcpLink:
    """See ``Link``. Memory: two frames, allocated once."""

    def __init__(
        self,
        sock: trio.socket.SocketType,
        peer: PeerId,
        serial: int,
        keys: tuple[FrameKey, FrameKey],
        traffic: Traffic,
        host: str,
    ) -> None:
        self.peer = peer
        self.serial = serial
        self.host = host
        self._socket = EagerSocket(sock)
        self._send_key, self._receive_key = keys
        self._traffic = traffic
        self._is_finished = False
        self._closed = trio.Event()
        self._last_sent = trio.current_time()
        self._frame_turn = trio.Lock()  # fair: a control frame waits for one bulk frame at most
        self._turns_wanted = 0  # messages that wait for their turn, or have it
        self._bulk_turn = trio.Lock()
        self._out = memoryview(bytearray(MAX_FRAME))
        self._in = memoryview(bytearray(MAX_FRAME + HEADER_SIZE))
        self._start = self._end = 0  # the unread bytes of _in
        self._bytes_in_turn = 0
        self._parts = bytearray()
        self._incoming: _Incoming | None = None
        self._bulk_deadline = float("inf")

    # --- sending

    async def send(self, kind: int, head: bytes, payload: memoryview | None = None) -> None:
        """See ``Link.send``."""
        check_message(kind, head, payload)
        if payload is None:
            await self._write(_split_control(bytes((kind,)) + head))
        else:
            async with self._bulk_turn:
                await self._send_bulk(kind, head, payload)

    def send_now(self, kind: int, head: bytes, payload: memoryview | None = None) -> bool:
        """See ``Link.send_now``; a socket may always have to be waited for."""
        return False

    async def _send_bulk(self, kind: int, head: bytes, payload: memoryview) -> None:
        await self._write([(FrameType.BULK, encode_bulk_start(kind, head, len(payload)))])
        position = 0
        try:
            while position < len(payload):
                position = await self._write_data(payload, position)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._write([(FrameType.ABORT, b"")])
            raise

    async def _write_data(self, payload: memoryview, position: int) -> int:
        """Write frames of a payload until others want their turn; return how far it is written."""
        limit = min(position + BYTES_PER_TURN, len(payload))
        async with self._frame_turn:
            while position < limit:
                # The turn may come together with the cancellation, after which a payload is not ours to read.
                await trio.lowlevel.checkpoint_if_cancelled()
                end = min(position + MAX_PLAIN, len(payload))
                if rest := self._begin_frame(FrameType.DATA, payload[position:end]):
                    await self._push(rest)
                position = end
                if self._turns_wanted:
                    break
        return position

    async def _write(self, frames: Iterable[tuple[FrameType, bytes | memoryview]]) -> None:
        """Write the frames with nothing between them; cancelled before the first or not at all.

        Raises:
            ConnectionLost: the link is gone, or a frame took longer than FRAME_SECONDS.
        """
        self._turns_wanted += 1
        try:
            async with self._frame_turn:
                await trio.lowlevel.checkpoint_if_cancelled()
                for frame_type, plain in frames:
                    if rest := self._begin_frame(frame_type, plain):
                        await self._push(rest)
        finally:
            self._turns_wanted -= 1

    def _begin_frame(self, frame_type: FrameType, plain: bytes | memoryview) -> memoryview:
        """Write as much of the next frame as the kernel takes now; return the rest, which must follow."""
        if self._is_finished or self._closed.is_set():
            raise ConnectionLost(f"the link to {short(self.peer)} is closed")
        frame = self._send_key.seal(frame_type, plain, self._out)
        self._last_sent = trio.current_time()
        sent = self._send_some(frame)
        self._traffic.count_sent(len(frame), is_data=frame_type.is_data)
        return frame[sent:]

    def _send_some(self, frame: memoryview) -> int:
        try:
            return self._socket.send(frame)
        except SOCKET_ERRORS as error:
            raise self._break(f"the link to {short(self.peer)} broke: {error}") from None

    async def _push(self, rest: memoryview) -> None:
        """Write the rest of a frame; a cancellation waits until it is written."""
        deadline = self._last_sent + FRAME_SECONDS
        while rest:
            with trio.CancelScope(shield=True, deadline=deadline) as stuck:
                await self._wait_writable()
            if stuck.cancelled_caught:
                raise self._break(f"{short(self.peer)} took nothing for {FRAME_SECONDS:.0f} s")
            rest = rest[self._send_some(rest) :]

    async def _wait_writable(self) -> None:
        try:
            await self._socket.wait_writable()
        except SOCKET_ERRORS as error:
            raise self._break(f"the link to {short(self.peer)} broke: {error}") from None

    async def live(self) -> None:
        """Return when the link is closed, write pings until then; cancelled, close it."""
        try:
            while not self._closed.is_set():
                with trio.move_on_at(self._last_sent + PING_SECONDS):
                    await self._closed.wait()
                await self._ping()
        except ConnectionLost:
            pass
        finally:
            await self.aclose()

    async def _ping(self) -> None:
        if self._is_finished:
            await self._closed.wait()
        elif trio.current_time() >= self._last_sent + PING_SECONDS:
            await self._write([(FrameType.PING, b"")])

    # --- receiving

    async def receive(self, sink: Sink) -> Message:
        """See ``Link.receive``."""
        try:
            while True:
                frame_type, header, body = await self._read_frame()
                message = self._take_frame(frame_type, header, body, sink)
                if message is not None:
                    return message
        except RemoteProtocolError as error:
            error.peer = self.peer
            raise

    async def listen(self, sink: Sink, take: Callable[[Message], None]) -> NoReturn:
        """See ``Link.listen``."""
        while True:
            take(await self.receive(sink))

    async def _read_frame(self) -> tuple[FrameType, bytes, memoryview]:
        """Return (type, header, ciphertext) of the next frame, valid until the next call."""
        if self._bytes_in_turn >= BYTES_PER_TURN:
            self._bytes_in_turn = 0
            await trio.lowlevel.checkpoint()
        if self._end - self._start < HEADER_SIZE:
            await self._fill(HEADER_SIZE, 0)
        header = bytes(self._in[self._start : self._start + HEADER_SIZE])
        frame_type, size = decode_header(header)
        if self._end - self._start < HEADER_SIZE + size:
            await self._fill(HEADER_SIZE + size, HEADER_SIZE)
        body = self._in[self._start + HEADER_SIZE : self._start + HEADER_SIZE + size]
        self._start += HEADER_SIZE + size
        self._bytes_in_turn += max(size, FRAME_COST)
        self._traffic.count_received(HEADER_SIZE + size, is_data=frame_type.is_data)
        return frame_type, header, body

    async def _fill(self, needed: int, already: int) -> None:
        """Read until ``needed`` bytes are unread; a frame begun is complete within FRAME_SECONDS."""
        self._in[: self._end - self._start] = self._in[self._start : self._end]
        self._start, self._end = 0, self._end - self._start
        # Beyond a large frame only the next header is read, so that what must be moved to the front stays small.
        limit = needed + HEADER_SIZE if already else len(self._in)
        begun: float | None = None
        while self._end < needed:
            if self._receive_some(limit):
                continue
            if self._end and begun is None:
                begun = trio.current_time()
            silence = min(trio.current_time() + SILENCE_SECONDS, self._bulk_deadline)
            await self._wait_readable(silence if begun is None else begun + FRAME_SECONDS)

    def _receive_some(self, limit: int) -> bool:
        """Read what is here already; return whether that was anything."""
        try:
            count = self._socket.receive_into(self._in[self._end : limit])
        except SOCKET_ERRORS as error:
            raise ConnectionLost(f"the link to {short(self.peer)} broke: {error}") from None
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
            raise ConnectionLost(f"the link to {short(self.peer)} broke: {error}") from None
        if patience.cancelled_caught:
            raise ConnectionLost(f"{short(self.peer)} fell silent")

    def _take_frame(self, frame_type: FrameType, header: bytes, body: memoryview, sink: Sink) -> Message | None:
        """Return the message that this frame completes, if any."""
        if frame_type is FrameType.DATA:
            return self._take_data(header, body)
        plain = self._receive_key.open(header, body)
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

    def _take_data(self, header: bytes, body: memoryview) -> Message | None:
        bulk = self._incoming
        if bulk is None or len(body) - TAG_SIZE != min(MAX_PLAIN, bulk.size - bulk.received) or self._parts:
            raise RemoteProtocolError("a data frame is out of place")
        if bulk.target is None:
            self._receive_key.open(header, body)
        else:
            end = bulk.received + len(body) - TAG_SIZE
            self._receive_key.open_into(header, body, bulk.target[bulk.received : end])
        bulk.received += len(body) - TAG_SIZE
        self._bulk_deadline = trio.current_time() + FRAME_SECONDS
        return self._end_bulk() if bulk.received == bulk.size else None

    def _end_bulk(self) -> Message | None:
        """Return the bulk message if all of it arrived and somebody wants it; the next one may begin."""
        bulk, self._incoming = self._incoming, None
        self._bulk_deadline = float("inf")
        if bulk is None or bulk.target is None or bulk.received < bulk.size:
            return None
        return Message(bulk.kind, bulk.head, bulk.target)

    def drop_bulk(self, target: memoryview) -> None:
        """See ``Link.drop_bulk``."""
        if self._incoming is not None and self._incoming.target is target:
            self._incoming.target = None

    # --- ending

    async def finish(self) -> None:
        """See ``Link.finish``."""
        async with self._frame_turn:
            self._is_finished = True
            try:
                self._socket.finish()
            except OSError:
                await self.aclose()

    def _break(self, reason: str) -> ConnectionLost:
        """End the link at once; return the error that says why."""
        self._closed.set()
        self._socket.close()
        return ConnectionLost(reason)

    async def aclose(self) -> None:
        """See ``Link.aclose``."""
        self._closed.set()
        self._socket.close()
        await trio.lowlevel.checkpoint()


def _split_control(plain: bytes) -> Iterator[tuple[FrameType, bytes | memoryview]]:
    """Yield the frames of one control message."""
    for offset in range(0, len(plain), MAX_PLAIN):
        is_last = offset + MAX_PLAIN >= len(plain)
        yield FrameType.CONTROL if is_last else FrameType.PART, memoryview(plain)[offset : offset + MAX_PLAIN]
