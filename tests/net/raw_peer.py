"""A peer that writes whatever frames it likes after a correct handshake."""

import trio

from btard.identity import Identity
from btard.net import Address, Hub, Terms, open_tcp
from btard.net.frames import MAX_FRAME, FrameKey, FrameType
from btard.net.handshake import Credentials, Handshake

TERMS = Terms(b"run", {"tau": bytes(8)})
LOOPBACK = Address("127.0.0.1", 0)
KIND = 7

_PRIME = 2**255 - 19
_ORDER_8 = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
SMALL_ORDER = [
    (point | top << 255).to_bytes(32, "little")
    for point in (0, 1, *_ORDER_8, _PRIME - 1, _PRIME, _PRIME + 1)
    for top in (0, 1)
]
"""Every X25519 key with which all others share the same secret, zero; its highest bit does not count (RFC 7748, 5)."""


class RawPeer:
    """A peer that writes whatever frames it likes after a correct handshake."""

    def __init__(self, stream: trio.SocketStream, send_key: FrameKey) -> None:
        self.stream = stream
        self._send_key = send_key

    def seal(self, frame_type: FrameType, plain: bytes = b"") -> bytes:
        return bytes(self._send_key.seal(frame_type, plain, memoryview(bytearray(MAX_FRAME))))

    async def drip(self, frame: bytes) -> None:
        """Write a frame byte by byte, one each ten seconds."""
        for position in range(len(frame)):
            await self.stream.send_all(frame[position : position + 1])
            await trio.sleep(10)

    async def closed(self) -> None:
        """Return once the other side has closed the connection."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


async def send_message(stream: trio.SocketStream, message: bytes) -> None:
    """Write one handshake message."""
    await stream.send_all(len(message).to_bytes(2, "big") + message)


async def receive_message(stream: trio.SocketStream) -> bytes:
    """Return the next handshake message."""
    size = int.from_bytes(await receive_exactly(stream, 2), "big")
    return await receive_exactly(stream, size)


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Return the next ``size`` bytes."""
    data = b""
    while len(data) < size:
        some = await stream.receive_some(size - len(data))
        assert some, "the connection ended"
        data += some
    return data


async def dial_raw(address: Address) -> RawPeer:
    """Return a raw peer with a fresh identity, linked to whoever listens at ``address``."""
    credentials = Credentials(Identity.generate(), TERMS)
    stream = await trio.open_tcp_stream(address.host, address.port)
    handshake = Handshake(credentials, is_dialler=True)
    await send_message(stream, handshake.write())
    handshake.read_introduction(await receive_message(stream))
    await send_message(stream, handshake.write(credentials.introduce(1)))
    return RawPeer(stream, handshake.split()[0])


async def assert_alive(hub: Hub, address: Address) -> None:
    """Pass if an honest newcomer can link to the hub and is heard."""
    heard = trio.Event()
    hub.on_control[KIND] = lambda peer, head: heard.set()
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as newcomer:
        link = await newcomer.connect(address, hub.me)
        await link.send(KIND, b"hello")
        await heard.wait()
