"""Handshakes that are never completed: bounded in time and number, and nobody else's are lost by them."""

import pytest
import trio
from tests.net.raw_peer import TERMS, assert_alive, receive_message, send_message

from btard.errors import Unreachable
from btard.identity import Identity, PeerId
from btard.net import Address
from btard.net.half_open import MAX_KNOWN, MAX_SILENT, Account, HalfOpen
from btard.net.handshake import Credentials, Handshake


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
    streams = [await trio.open_tcp_stream("127.0.0.1", transport.address.port) for _ in range(MAX_SILENT)]
    await assert_alive(hub, transport.address)
    assert await streams[0].receive_some() == b""
    assert len(transport._half_open) < MAX_SILENT
    for stream in streams:
        await stream.aclose()


async def test_a_flood_of_handshakes_crowds_out_itself(transport):
    """Half-open connections of one address give way to each other, not those of others to them."""

    async def dial(host: str) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", transport.address.port, local_address=host)

    honest = await dial("127.0.0.1")
    flood = [await dial("127.0.0.2") for _ in range(3 * MAX_SILENT)]
    for stream in flood[: 2 * MAX_SILENT]:
        assert await stream.receive_some() == b""
    assert len(transport._half_open) == MAX_SILENT
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


SAME_ROUTER = ["127.0.0.1"] * MAX_SILENT
MANY_ORIGINS = [f"127.7.{index}.1" for index in range(MAX_SILENT)]


@pytest.mark.parametrize("flood", [SAME_ROUTER, MANY_ORIGINS], ids=["the same router", "many origins"])
async def test_silent_connections_cost_no_member_its_handshake(transport, hub, flood):
    """Whose hail was recognised is safe from connections on which nothing is said, wherever they come from."""
    member = Identity(b"m" * 32)
    hub.favour(member.peer_id.__eq__)
    transport.arrivals.is_known = lambda peer: not hub.is_stranger(peer)
    credentials, stream = Credentials(member, TERMS), await trio.open_tcp_stream("127.0.0.1", transport.address.port)
    handshake = Handshake(credentials, is_dialler=True)
    ephemeral = handshake.write()
    await send_message(stream, ephemeral + credentials.hail(1, ephemeral))
    handshake.read_introduction(await receive_message(stream))
    port = transport.address.port
    first, *silent = [await trio.open_tcp_stream("127.0.0.1", port, local_address=host) for host in [*flood, flood[0]]]
    assert await first.receive_some() == b""  # all places of the silent are taken
    await send_message(stream, handshake.write(credentials.introduce(1)))
    with trio.fail_after(10):
        await hub.wait_connected([member.peer_id])
    for each in (stream, first, *silent):
        await each.aclose()


async def test_handshakes_of_a_member_crowd_out_no_other(slow_clock):
    """Where all places of known peers are taken, one gives way that belongs to whoever has most of them."""
    half_open, ended = HalfOpen(), []

    async def shake_hands(account: Account) -> None:
        with half_open.place("127.0.0.1") as place:
            half_open.admit(place, account)
            await trio.sleep_forever()
        ended.append(account)

    async with trio.open_nursery() as nursery:
        for account in [PeerId(b"honest"), *[PeerId(b"greedy")] * MAX_KNOWN]:
            nursery.start_soon(shake_hands, account)
            await trio.testing.wait_all_tasks_blocked()
        assert (ended, len(half_open)) == ([b"greedy"], MAX_KNOWN)
        nursery.cancel_scope.cancel()
