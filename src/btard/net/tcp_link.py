"""A link over a TCP socket, after its handshake."""

from collections.abc import Callable
from typing import NoReturn

import trio

from btard.errors import ConnectionLost, RemoteProtocolError
from btard.identity import PeerId
from btard.net.eager_socket import EagerSocket
from btard.net.frame_reader import FrameReader
from btard.net.frame_writer import FrameWriter
from btard.net.frames import FrameKey, FrameType
from btard.net.link import Message, Sink, check_message, never
from btard.net.traffic import Traffic

PING_SECONDS = 15.0  # we write at least this often


class TcpLink:
    """See ``Link``. Large payloads are sent and received by worker threads, as many at a time as ``threads`` allow."""

    def __init__(
        self,
        sock: trio.socket.SocketType,
        peer: PeerId,
        serial: int,
        keys: tuple[FrameKey, FrameKey],
        traffic: Traffic,
        host: str,
        threads: tuple[trio.CapacityLimiter, trio.CapacityLimiter],
    ) -> None:
        self.peer = peer
        self.serial = serial
        self.host = host
        self._socket = EagerSocket(sock)
        self._writer = FrameWriter(self._socket, peer, keys[0], traffic, threads[0])
        self._reader = FrameReader(self._socket, peer, keys[1], traffic, threads[1])
        self._closed = trio.Event()

    async def send(self, kind: int, head: bytes, payload: memoryview | None = None) -> None:
        """See ``Link.send``."""
        check_message(kind, head, payload)
        try:
            if payload is None:
                await self._writer.send_control(bytes((kind,)) + head)
            else:
                await self._writer.send_bulk(kind, head, payload)
        except ConnectionLost:
            self._close()
            raise

    def send_now(self, kind: int, head: bytes, payload: memoryview | None = None) -> bool:
        """See ``Link.send_now``; a socket may always have to be waited for."""
        return False

    async def live(self) -> None:
        """Return when the link is closed, write pings until then; cancelled, close it."""
        try:
            while not self._closed.is_set():
                with trio.move_on_at(self._writer.last_sent + PING_SECONDS):
                    await self._closed.wait()
                await self._ping()
        except ConnectionLost:
            pass
        finally:
            await self.aclose()

    async def _ping(self) -> None:
        if self._writer.is_stopped:
            await self._closed.wait()
        elif trio.current_time() >= self._writer.last_sent + PING_SECONDS:
            await self._writer.write([(FrameType.PING, b"")])

    async def receive(self, sink: Sink) -> Message:
        """See ``Link.receive``."""
        return await self._receive(sink, never)

    async def listen(
        self, sink: Sink, take: Callable[[Message], None], find_pause: Callable[[], float] = never
    ) -> NoReturn:
        """See ``Link.listen``."""
        while True:
            take(await self._receive(sink, find_pause))

    async def _receive(self, sink: Sink, find_pause: Callable[[], float]) -> Message:
        try:
            return await self._reader.receive(sink, find_pause)
        except RemoteProtocolError as error:
            error.peer = self.peer
            raise

    def drop_bulk(self, target: memoryview | None) -> None:
        """See ``Link.drop_bulk``."""
        self._reader.drop_bulk(target)

    def settle(self) -> None:
        """See ``Link.settle``."""
        self._writer.settle()

    async def finish(self) -> None:
        """See ``Link.finish``."""
        try:
            await self._writer.finish()
        except OSError:
            await self.aclose()

    async def aclose(self) -> None:
        """See ``Link.aclose``."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._closed.set()
        self._writer.is_stopped = True
        self._reader.drop_bulk(None)
        self._socket.close()
