"""Throwers without a place in the run: before the handshake, and after one with a key that nobody knows."""

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import trio
from tests.fuzz.generate import HEADS, Generator, is_chatter
from tests.net.raw_peer import SMALL_ORDER, RawPeer, receive_message, send_message

from btard.net.frames import MAX_FRAME, MAX_PLAIN, FrameType, encode_bulk_start, encode_header
from btard.net.handshake import MAX_HANDSHAKE_MESSAGE, Credentials, Handshake, Introduction
from btard.net.requests import encode_answer, encode_request
from btard.net.session import ANSWER, REQUEST
from btard.swarm.frames import Kind

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, AssertionError)
PATIENCE_SECONDS = 5.0
CLOSE_SECONDS = 1.0  # without this wait the system would throw away what the victim has not read yet
MAX_STALLED = 150  # connections that a thrower holds half open or dripping
MAX_BATCH = 100
"""Messages written on one link before the one that ends it: a handshake costs the victim as much as 50 messages."""
RESET = struct.pack("ii", 1, 0)


class Dialler:
    """Opens connections to the victim, from many addresses of this machine."""

    def __init__(self, generator: Generator, port: int) -> None:
        self._generator, self.port = generator, port

    async def open(self) -> trio.SocketStream:
        """Return a new connection."""
        chance = self._generator.chance
        host = f"127.{chance.randrange(1, 250)}.{chance.randrange(250)}.{chance.randrange(1, 250)}"
        return await trio.open_tcp_stream("127.0.0.1", self.port, local_address=host)

    async def close(self, stream: trio.SocketStream) -> None:
        """End a connection after the victim read all of it, or with a reset."""
        try:
            with suppress(*BROKEN), trio.move_on_after(CLOSE_SECONDS):
                if self._generator.chance.random() < 0.1:
                    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET)
                else:
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
        finally:
            stream.socket.close()


@contextmanager
def shrugging() -> Iterator[None]:
    """Take it as it comes that the victim ends a connection, or does not answer for long."""
    with suppress(*BROKEN), trio.move_on_after(PATIENCE_SECONDS):
        yield


class Unknown:
    """Whoever has not completed a handshake."""

    def __init__(self, generator: Generator, dialler: Dialler, credentials: list[Credentials]) -> None:
        self._generator, self._chance = generator, generator.chance
        self._dialler, self._credentials = dialler, credentials
        self.thrown, self.chatter = 0, 0
        self._overheard: list[bytes] = []
        self._stalled: list[trio.SocketStream] = []

    def close(self) -> None:
        """Let go of what hangs."""
        for stream in self._stalled:
            stream.socket.close()

    async def throw(self) -> None:
        """Make one connection and break it in some way, or leave it hanging."""
        ways = [self._noise] * 4 + [self._first] * 3 + [self._third] * 3 + [self._stall]
        with shrugging():
            stream = await self._dialler.open()
            try:
                self.thrown += 1
                keep = await self._chance.choice(ways)(stream)
            except BaseException:
                stream.socket.close()
                raise
            if not keep:
                await self._dialler.close(stream)

    async def _noise(self, stream: trio.SocketStream) -> bool:
        size = self._chance.choice([0, 1, 2, 3, 32, 48, 300, 32_770, 70_000])
        noise = self._chance.randbytes(size)
        is_framed = self._chance.random() < 0.5
        await stream.send_all((size & 0xFFFF).to_bytes(2, "big") * is_framed + noise)
        return False

    async def _first(self, stream: trio.SocketStream) -> bool:
        """Send a first message that is changed, overheard, too long, or a key that nobody shares a secret with."""
        message = Handshake(self._chance.choice(self._credentials), is_dialler=True).write()
        self._remember(message)
        ways = [self._generator.mutate(message), self._chance.choice(self._overheard), self._chance.choice(SMALL_ORDER)]
        changed = self._chance.choice(ways)
        await send_message(stream, changed[: MAX_HANDSHAKE_MESSAGE + self._chance.randrange(2)])
        return False

    async def _third(self, stream: trio.SocketStream) -> bool:
        """Send a good first and a bad third message."""
        credentials = self._chance.choice(self._credentials)
        handshake = Handshake(credentials, is_dialler=True)
        await send_message(stream, handshake.write())
        handshake.read_introduction(await receive_message(stream))
        roll, good = self._chance.random(), credentials.introduce(1)
        if roll < 0.3:
            message = handshake.write(self._generator.struct(Introduction))
        elif roll < 0.6:
            message = handshake.write(self._generator.mutate(good)[:30_000])
        elif roll < 0.7:
            stolen = msgspec.structs.replace(msgspec.msgpack.decode(good, type=Introduction), peer=bytes(32))
            message = handshake.write(msgspec.msgpack.encode(stolen))
        elif roll < 0.9:
            message = self._generator.mutate(handshake.write(good))
        else:
            message = self._chance.choice(self._overheard) if self._overheard else b""
        self._remember(message)
        await send_message(stream, message[:65_535])
        return False

    async def _stall(self, stream: trio.SocketStream) -> bool:
        """Leave a connection half open, and let another one drip."""
        message = Handshake(self._credentials[0], is_dialler=True).write()
        data = len(message).to_bytes(2, "big") + message
        await stream.send_all(data[: self._chance.randrange(len(data))])
        self._stalled.append(stream)
        if len(self._stalled) > MAX_STALLED:
            self._stalled.pop(0).socket.close()
        with suppress(*BROKEN):
            await self._chance.choice(self._stalled).send_all(b"\0")
        return True

    def _remember(self, message: bytes) -> None:
        self._overheard = [*self._overheard[-31:], message]


class Stranger:
    """Whoever completed a handshake with a key of its own, and writes frames of all kinds."""

    def __init__(self, generator: Generator, dialler: Dialler, credentials: list[Credentials]) -> None:
        self._generator, self._chance = generator, generator.chance
        self._dialler, self._credentials = dialler, credentials
        self.thrown, self.chatter = 0, 0
        self._serials = itertools.count(1)
        self._memory = memoryview(bytearray(MAX_FRAME))
        self._last = b""

    def close(self) -> None:
        """Do nothing: no link outlives its batch."""

    async def throw(self) -> None:
        """Make a link, write messages that it survives and one that ends it, and go."""
        with shrugging():
            stream = await self._dialler.open()
            try:
                peer = await self._shake(stream)
                batch = [True] * self._chance.randint(1, MAX_BATCH) + [False]
                frames = [frame for bears in batch for frame in self._frames(peer, is_bearable=bears)]
                await stream.send_all(b"".join(frames))
                await self._dialler.close(stream)
            finally:
                stream.socket.close()

    async def _shake(self, stream: trio.SocketStream) -> RawPeer:
        credentials = self._chance.choice(self._credentials)
        handshake = Handshake(credentials, is_dialler=True)
        await send_message(stream, handshake.write())
        handshake.read_introduction(await receive_message(stream))
        await send_message(stream, handshake.write(credentials.introduce(next(self._serials))))
        return RawPeer(stream, handshake.split()[0])

    def _frames(self, peer: RawPeer, *, is_bearable: bool) -> Iterator[bytes]:
        roll = self._chance.random()
        if roll < 0.6:
            yield from self._message(peer, is_bearable=is_bearable)
        elif roll < 0.9 or is_bearable:
            yield from self._bulk(peer, is_bearable=is_bearable)
        else:
            self.thrown += 1
            yield self._broken(peer)

    def _message(self, peer: RawPeer, *, is_bearable: bool) -> Iterator[bytes]:
        """Write a control message, a request or an answer, some in parts."""
        kind, head = make_control(self._generator, is_bearable=is_bearable)
        self._note(kind, head)
        plain = bytes([kind]) + head
        if len(plain) > 1 and self._chance.random() < 0.1:
            cut = self._chance.randrange(1, len(plain)) if is_bearable else self._chance.randrange(len(plain) + 1)
            yield self._seal(peer, FrameType.PART, plain[:cut][:MAX_PLAIN])
            plain = plain[cut:]
        yield self._seal(peer, FrameType.CONTROL, plain[:MAX_PLAIN])

    def _bulk(self, peer: RawPeer, *, is_bearable: bool) -> Iterator[bytes]:
        """Announce a payload, of a true or a false size, and send some of it."""
        kind, roll = self._chance.choice([Kind.SLICE, Kind.PART, ANSWER, 99]), self._chance.random()
        head = self._generator.head(kind)[: 16 << 10]
        if is_bearable:
            kind, head = self._chance.choice([Kind.SLICE, Kind.PART, 99]), head or b"\0"
        self._note(kind, head)
        said = 64 if is_bearable else self._chance.choice([0, 1, 4, 1000, 1 << 20, 1 << 38, (1 << 38) + 1, 2**63])
        yield self._seal(peer, FrameType.BULK, encode_bulk_start(kind, head, said))
        if is_bearable and roll < 0.9:
            yield self._seal(peer, FrameType.DATA, bytes(64))
        elif roll > 0.1:
            yield self._seal(peer, FrameType.ABORT, b"")
        else:
            yield self._seal(peer, FrameType.DATA, self._chance.randbytes(self._chance.choice([0, 1, 64, 4096])))

    def _broken(self, peer: RawPeer) -> bytes:
        """Return what is no frame in this place."""
        frame = self._seal(peer, FrameType.CONTROL, b"\x07text")
        spoilt = frame[:-1] + bytes([frame[-1] ^ 1])
        header = encode_header(FrameType.CONTROL, self._chance.choice([0, 15, 16, MAX_PLAIN + 17, 2**24 - 1]))
        misplaced = self._seal(peer, self._chance.choice([FrameType.ABORT, FrameType.DATA, FrameType.PART]), b"")
        return self._chance.choice(
            [spoilt, self._last, frame[:7], b"\x09" + frame[1:], header, misplaced, self._chance.randbytes(300)]
        )

    def _note(self, kind: int, head: bytes) -> None:
        self.thrown += 1
        self.chatter += is_chatter(kind, head)

    def _seal(self, peer: RawPeer, frame_type: FrameType, plain: bytes) -> bytes:
        self._last = bytes(peer._send_key.seal(frame_type, plain, self._memory))
        return self._last


def make_control(generator: Generator, *, is_bearable: bool = False) -> tuple[int, bytes]:
    """Return the kind and the head of what might be a control message, a request or an answer.

    What is bearable does not end the link of a stranger, so that more of it is read.
    """
    chance = generator.chance
    roll = chance.random()
    if is_bearable and roll < 0.5:
        kind = chance.choice([Kind.PULL_STAGE, 66, 66, 66])
        with generator.fitting():
            body = generator.struct(HEADS.get(kind, Introduction))
        return REQUEST, encode_request(chance.randrange(2**32), kind, body)
    if is_bearable:
        kind = chance.choice([Kind.MESSAGE, Kind.CERTIFICATE, 77])
        return kind, generator.head(kind)
    kind = chance.choice([*Kind, chance.randrange(254)])
    if roll < 0.4:
        return kind, generator.head(kind)
    if roll < 0.9:
        return REQUEST, encode_request(chance.randrange(2**32), kind, generator.head(kind))
    if roll < 0.97:
        return ANSWER, encode_answer(chance.randrange(100), generator.head(kind))
    return chance.choice([REQUEST, ANSWER]), chance.randbytes(chance.randrange(5))
