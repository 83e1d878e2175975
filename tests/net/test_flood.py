"""A flood of strangers over TCP: it is turned away before it costs a handshake, and nobody else with it."""

import pytest
import trio
from tests.net.raw_peer import KIND, TERMS, receive_message, send_message

from btard.errors import Unreachable
from btard.identity import Identity
from btard.net import TcpTransport, open_tcp
from btard.net.arrivals import ORIGIN
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
