"""The sending half of a TCP link: messages to frames, in turns; the frames of large payloads by a worker thread."""

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from btard.errors import ConnectionLost
from btard.identity import PeerId, short
from btard.net.eager_socket import SOCKET_ERRORS, EagerSocket
from btard.net.frames import MAX_FRAME, MAX_PLAIN, FrameKey, FrameType, compute_data_size, encode_bulk_start
from btard.net.traffic import Traffic
from btard.net.turns import hold

FRAME_SECONDS = 30.0  # a frame, once begun, is complete within; so is the pause inside a bulk message
THREAD_BYTES = 2 * MAX_PLAIN  # of a payload: less is not worth a thread's start, 0.1 ms
TURN_BYTES = 16 << 20  # that a thread writes or reads in a row before other links get it
TURNS_IN_A_ROW = 16  # in which no other task got its turn
_NOTHING = memoryview(b"")


@dataclass
class _Outgoing:
    """A payload being sent; its frames are written up to ``position``."""

    payload: memoryview  # not ours any more, and perhaps gone, once its sending was cancelled
    size: int
    position: int = 0

    @property
    def missing(self) -> int:
        return self.size - self.position

    def read_next(self) -> memoryview | None:
        """Return what the next frame holds.

        ``None`` where the payload is gone: its sending was cancelled as a thread for it began, which did not hear of it
        yet. Whoever waits for that thread does.
        """
        try:
            plain = self.payload[self.position : self.position + MAX_PLAIN]
        except ValueError:  # it was released
            return None
        self.position += len(plain)
        return plain


class FrameWriter:
    """Writes for one link, until ``is_stopped``. Memory: one frame, allocated once."""

    def __init__(
        self, sock: EagerSocket, peer: PeerId, key: FrameKey, traffic: Traffic, threads: trio.CapacityLimiter
    ) -> None:
        self.last_sent = trio.current_time()
        self.is_stopped = False
        self._socket, self._peer, self._key = sock, peer, key
        self._traffic, self._threads = traffic, threads
        self._frame_turn = trio.Lock()  # fair: a control frame waits for one bulk frame at most
        self._turns_wanted = 0  # messages that wait for their turn, or have it
        self._turns_in_a_row = 0
        self._bulk_turn = trio.Lock()
        self._sealing = threading.Lock()  # held while a payload is read
        self._frame = memoryview(bytearray(MAX_FRAME))

    async def send_control(self, plain: bytes) -> None:
        """Write a control message: its kind and head."""
        await self.write(_split_control(plain))

    async def send_bulk(self, kind: int, head: bytes, payload: memoryview) -> None:
        """Write a bulk message; cancelled, have the peer forget it."""
        async with hold(self._bulk_turn):
            outgoing = _Outgoing(payload, len(payload))
            await self.write([(FrameType.BULK, encode_bulk_start(kind, head, outgoing.size))])
            try:
                while outgoing.missing:
                    await self._write_data(outgoing)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await self.write([(FrameType.ABORT, b"")])
                raise

    async def write(self, frames: Iterable[tuple[FrameType, bytes | memoryview]]) -> None:
        """Write the frames with nothing between them; cancelled before the first or not at all.

        Raises:
            ConnectionLost: the link is gone, or a frame took longer than FRAME_SECONDS.
        """
        self._turns_wanted += 1
        try:
            async with self._turn():
                for frame_type, plain in frames:
                    self._check_open()
                    frame = self._key.seal(frame_type, plain, self._frame)
                    self._traffic.count_sent(len(frame), is_data=frame_type.is_data)
                    await self._push(frame)
        finally:
            self._turns_wanted -= 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let nobody else write within; other tasks get their turn now and then, not each time."""
        self._turns_in_a_row = (self._turns_in_a_row + 1) % TURNS_IN_A_ROW
        async with hold(self._frame_turn):
            # The turn may come together with the cancellation, after which a payload is not ours to read.
            await (trio.lowlevel.checkpoint_if_cancelled if self._turns_in_a_row else trio.lowlevel.checkpoint)()
            yield

    async def _write_data(self, outgoing: _Outgoing) -> None:
        """Write frames of a payload until others want their turn or the kernel takes no more."""
        async with self._turn():
            self._check_open()
            begun = outgoing.position
            try:
                rest = await self._write_frames(outgoing)
            except SOCKET_ERRORS as error:
                raise self._explain(error) from None
            finally:
                self.last_sent = trio.current_time()
                self._traffic.count_sent(compute_data_size(outgoing.position - begun), is_data=True)
            await self._push(rest)

    async def _write_frames(self, outgoing: _Outgoing) -> memoryview:
        """Write frames and return the rest of the last one, which must follow.

        We have the turn, so nobody waits for a thread here: where none is free the event loop goes on by itself.
        """
        if outgoing.missing < THREAD_BYTES or self._threads.available_tokens < 1:
            return self._seal_and_send(outgoing, self._socket.send, lambda: None, THREAD_BYTES)
        with self._socket.lent():
            return await trio.to_thread.run_sync(
                self._seal_and_send,
                outgoing,
                self._socket.send_blocking,
                trio.from_thread.check_cancelled,
                TURN_BYTES,
                limiter=self._threads,
            )

    def _seal_and_send(
        self, outgoing: _Outgoing, send: Callable[[memoryview], int], check: Callable[[], None], most: int
    ) -> memoryview:
        limit = min(outgoing.size, outgoing.position + most)
        while outgoing.position < limit:
            with self._sealing:
                check()
                if (plain := outgoing.read_next()) is None:
                    break
                frame = self._key.seal(FrameType.DATA, plain, self._frame)
                del plain  # no view of it is left while the frame is written
            if rest := frame[send(frame) :]:
                return rest
            if self._turns_wanted:
                break
        return _NOTHING

    async def _push(self, rest: memoryview) -> None:
        """Write the rest of a frame; a cancellation waits until it is written."""
        self.last_sent = trio.current_time()
        rest = rest[self._send_some(rest) :]
        while rest:
            with trio.CancelScope(shield=True, deadline=self.last_sent + FRAME_SECONDS) as stuck:
                await self._wait_writable()
            if stuck.cancelled_caught:
                raise ConnectionLost(f"{short(self._peer)} took nothing for {FRAME_SECONDS:.0f} s")
            rest = rest[self._send_some(rest) :]

    def _send_some(self, rest: memoryview) -> int:
        try:
            return self._socket.send(rest)
        except SOCKET_ERRORS as error:
            raise self._explain(error) from None

    async def _wait_writable(self) -> None:
        try:
            await self._socket.wait_writable()
        except SOCKET_ERRORS as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> ConnectionLost:
        return ConnectionLost(f"the link to {short(self._peer)} broke: {error}")

    def _check_open(self) -> None:
        if self.is_stopped:
            raise ConnectionLost(f"the link to {short(self._peer)} is closed")

    def settle(self) -> None:
        """See ``Link.settle``."""
        with self._sealing:
            pass

    async def finish(self) -> None:
        """Write nothing more after the frame under way, and tell the peer."""
        async with self._frame_turn:
            self.is_stopped = True
            self._socket.finish()


def _split_control(plain: bytes) -> Iterator[tuple[FrameType, bytes | memoryview]]:
    """Yield the frames of one control message."""
    for offset in range(0, len(plain), MAX_PLAIN):
        is_last = offset + MAX_PLAIN >= len(plain)
        yield FrameType.CONTROL if is_last else FrameType.PART, memoryview(plain)[offset : offset + MAX_PLAIN]
