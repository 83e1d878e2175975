"""Handshakes that are never completed: bounded in time and number, and nobody else's are lost by them."""

import pytest
import trio
from tests.net.raw_peer import TERMS, assert_alive, receive_message, send_message

from btard.errors import Unreachable
from btard.identity import Identity
from btard.net import Address
from btard.net.handshake import Credentials, Handshake
from btard.net.tcp import MAX_HALF_OPEN


async def test_a_silent_stranger_is_cut_off(transport, slow_clock):
    """A connection that does not complete its handshake is closed after ten seconds."""
    async with await trio.open_tcp_stream(transport.address.host, transport.address.port) as stream:
        begun = trio.current_time()
        assert await stream.receive_some() == b""
        assert 9 < trio.current_time() - begun < 12


async def test_a_silent_answerer_is_unreachable(transport, nursery, slow_clock):
    """A dialler waits ten seconds for a handshake."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    begun = trio.current_time()
    with pytest.raises(Unreachable, match="10 s"):
        await transport.connect(Address("127.0.0.1", listener.socket.getsockname()[1]), None)
    assert 10 <= trio.current_time() - begun < 12
    await listener.aclose()


async def test_strangers_cannot_take_all_places(hub, transport):
    """With all half-open places taken the oldest gives way, so an honest peer still gets in."""
    streams = [await trio.open_tcp_stream("127.0.0.1", transport.address.port) for _ in range(MAX_HALF_OPEN)]
    await assert_alive(hub, transport.address)
    assert await streams[0].receive_some() == b""
    assert len(transport._half_open) < MAX_HALF_OPEN
    for stream in streams:
        await stream.aclose()


async def test_a_flood_of_handshakes_crowds_out_itself(transport):
    """Half-open connections of one address give way to each other, not those of others to them."""

    async def dial(host: str) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", transport.address.port, local_address=host)

    honest = await dial("127.0.0.1")
    flood = [await dial("127.0.0.2") for _ in range(3 * MAX_HALF_OPEN)]
    for stream in flood[: 2 * MAX_HALF_OPEN]:
        assert await stream.receive_some() == b""
    assert len(transport._half_open) == MAX_HALF_OPEN
    handshake = Handshake(Credentials(Identity.generate(), TERMS), is_dialler=True)
    await send_message(honest, handshake.write())
    handshake.read_introduction(await receive_message(honest))
    for stream in (honest, *flood):
        await stream.aclose()


async def test_a_drip_of_a_handshake_ends_in_time(transport, slow_clock):
    """A handshake that comes byte by byte has ten seconds for all of it, not for each byte."""
    async with await trio.open_tcp_stream(transport.address.host, transport.address.port) as stream:
        begun = trio.current_time()
        message = Handshake(Credentials(Identity.generate(), TERMS), is_dialler=True).write()
        with pytest.raises(trio.BrokenResourceError):
            for byte in len(message).to_bytes(2, "big") + message:
                await stream.send_all(bytes([byte]))
                await trio.sleep(2)
        assert 9 < trio.current_time() - begun < 20
        assert not len(transport._half_open)
