"""A flood of strangers over TCP: it is turned away before it costs a handshake, and nobody else with it."""

import pytest
import trio
import trio.testing
from tests.net.raw_peer import KIND, TERMS, RawPeer, dial_raw, receive_message, send_message

from btard.errors import Unreachable
from btard.identity import Identity
from btard.net import Hub, Limits, TcpTransport, open_tcp
from btard.net.arrivals import ORIGIN
from btard.net.frames import FrameType
from btard.net.handshake import Credentials, Handshake

MEMBER = Identity(b"m" * 32)
FLOOD = Credentials(Identity.generate(), TERMS)


async def is_answered(transport: TcpTransport, host: str = "127.0.0.1") -> bool:
    """Begin a handshake from an address of this machine, and return whether it goes on."""
    stream = await trio.open_tcp_stream("127.0.0.1", transport.address.port, local_address=host)
    async with stream:
        await send_message(stream, Handshake(FLOOD, is_dialler=True).write())
        try:
            return bool(await receive_message(stream))
        except AssertionError:  # it hung up
            return False


async def flood(transport: TcpTransport) -> int:
    """Return how many strangers of a flood were answered at once."""
    return sum([await is_answered(transport) for _ in range(ORIGIN[1] + 20)])


async def test_a_flood_is_turned_away_and_other_networks_are_not(transport, mock_clock):
    """Beyond the burst nobody of the origin is answered until a second has passed; others are at once."""
    assert await flood(transport) == ORIGIN[1]
    assert not await is_answered(transport)
    assert await is_answered(transport, "127.2.0.1")
    mock_clock.jump(1 / ORIGIN[0])
    assert await is_answered(transport)
    assert not await is_answered(transport)


async def test_a_member_behind_the_flooders_router_comes_back(transport, hub, mock_clock):
    """From the same address a member gets its link, and a stranger is told that the peer hung up."""
    hub.favour(MEMBER.peer_id.__eq__)
    transport.arrivals.is_known = lambda peer: not hub.is_stranger(peer)
    assert await flood(transport) == ORIGIN[1]
    async with open_tcp(MEMBER, TERMS) as member, open_tcp(Identity.generate(), TERMS) as stranger:
        for _ in range(2):
            link = await member.connect(transport.address, hub.me)
            await hub.wait_connected([MEMBER.peer_id])
            await link.aclose()
            await hub.wait_lost(MEMBER.peer_id)
        with pytest.raises(Unreachable, match="hung up"):
            await stranger.connect(transport.address, hub.me)


async def test_links_that_are_up_outlast_a_flood(transport, hub, mock_clock):
    """A stranger with a link is heard while others from its address are turned away."""
    came = trio.Event()
    hub.on_control[KIND] = lambda peer, head: came.set()
    async with open_tcp(Identity.generate(), TERMS) as stranger:
        link = await stranger.connect(transport.address, hub.me)
        await flood(transport)
        assert not await is_answered(transport)
        await link.send(KIND, b"still here")
        await came.wait()


class Heard:
    """Counts the messages that a hub takes while a peer sends frames as fast as it can."""

    def __init__(self, hub: Hub, transport: TcpTransport) -> None:
        self.count, self._transport = 0, transport
        hub.on_control[KIND] = self._take

    def _take(self, _peer: bytes, _head: bytes) -> None:
        self.count += 1

    async def _hold(self, peer: RawPeer) -> None:
        async with peer.stream:
            await peer.closed()

    async def hear(self, nursery: trio.Nursery, *frames: tuple[FrameType, int]) -> None:
        """Have a fresh peer send so many frames of these types, empty but for their kind; return once all is quiet."""
        peer = await dial_raw(self._transport.address)
        nursery.start_soon(self._hold, peer)
        for frame_type, count in frames:
            plain = bytes([KIND]) if frame_type is FrameType.CONTROL else b""
            await peer.stream.send_all(b"".join(peer.seal(frame_type, plain) for _ in range(count)))
        await trio.testing.wait_all_tasks_blocked(0.02)


async def test_a_strangers_frames_come_at_a_pace(transport, hub, nursery, mock_clock):
    """What a stranger sends beyond the burst is read as time goes by, in order, and nothing of it is lost."""
    heard = Heard(hub, transport)
    at_once, per_s = Limits().stranger_frames_at_once, int(Limits().stranger_frames_per_s)
    await heard.hear(nursery, (FrameType.CONTROL, 2 * at_once))
    assert at_once - 1 <= heard.count <= at_once
    for _ in range(per_s):
        mock_clock.jump(1 / per_s)
        await trio.testing.wait_all_tasks_blocked()
    assert at_once + per_s - 1 <= heard.count <= at_once + per_s


async def test_empty_frames_use_up_the_pace_too(transport, hub, nursery, mock_clock):
    """Frames that give no message cost as much to read: what follows too many of them waits."""
    heard = Heard(hub, transport)
    await heard.hear(nursery, (FrameType.PING, 2 * Limits().stranger_frames_at_once), (FrameType.CONTROL, 1))
    assert heard.count == 0
    await heard.hear(nursery, (FrameType.PING, 10), (FrameType.CONTROL, 1))
    assert heard.count == 1


async def test_a_peer_that_is_favoured_has_no_pace(transport, hub, nursery, mock_clock):
    """Members are known, and answer for what they do with their place."""
    heard = Heard(hub, transport)
    hub.favour(lambda peer: True)
    await heard.hear(nursery, (FrameType.CONTROL, 2 * Limits().stranger_frames_at_once))
    assert heard.count == 2 * Limits().stranger_frames_at_once
