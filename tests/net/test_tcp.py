"""TCP links and a live listener under attack: garbage, tampering, impostors, and peers that stall."""

import random
from functools import partial

import pytest
import trio
import trio.testing
from tests.net.raw_peer import SMALL_ORDER, TERMS, RawPeer, assert_alive, dial_raw, receive_message, send_message

from btard.errors import ConfigError, ConnectionLost, NetworkError, RemoteProtocolError, Unreachable
from btard.identity import Identity
from btard.net import MAX_BULK, MAX_CONTROL, Address, Hub, open_tcp, refuse_bulk
from btard.net.frames import MAX_PLAIN, FrameKey, FrameType, encode_bulk_start
from btard.net.hail import EPHEMERAL_SIZE
from btard.net.handshake import Credentials, Handshake
from btard.net.tcp_link import TcpLink

LOOPBACK = Address("127.0.0.1", 0)
KIND = 7


@pytest.mark.parametrize("stage", [1, 2])
async def test_garbage_in_the_handshake_harms_nobody(hub, transport, stage):
    """Random bytes instead of the first or third message end that connection only."""
    chance = random.Random(stage)
    for _ in range(30):
        stream = await trio.open_tcp_stream(transport.address.host, transport.address.port)
        if stage == 2:
            await send_message(stream, Handshake(Credentials(Identity.generate(), TERMS), is_dialler=True).write())
            await receive_message(stream)
        garbage = chance.randbytes(chance.choice([1, 2, 50, 300, 40_000]))
        try:
            await stream.send_all(garbage if chance.random() < 0.3 else len(garbage).to_bytes(2, "big") + garbage)
            await stream.send_eof()
            await RawPeer(stream, FrameKey(bytes(32))).closed()
        except trio.BrokenResourceError:
            pass
        await stream.aclose()
    assert not hub.connected
    await assert_alive(hub, transport.address)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
async def test_a_key_of_small_order_ends_its_connection_only(hub, transport, key):
    """One packet of 34 bytes, a key with which nobody shares a secret, ends nothing but the connection it came on."""
    stream = await trio.open_tcp_stream(transport.address.host, transport.address.port)
    await send_message(stream, key)
    await RawPeer(stream, FrameKey(bytes(32))).closed()
    await stream.aclose()
    await assert_alive(hub, transport.address)


async def test_a_bug_in_the_handshake_ends_one_connection(hub, transport, monkeypatch, capsys):
    """What nobody thought of is logged with its traceback, and does not let a connection from anybody end the peer."""
    with monkeypatch.context() as patch:
        patch.setattr(Handshake, "read", lambda self, message: 1 // 0)
        stream = await trio.open_tcp_stream(transport.address.host, transport.address.port)
        await send_message(stream, bytes(EPHEMERAL_SIZE))
        await RawPeer(stream, FrameKey(bytes(32))).closed()
        await stream.aclose()
    assert "ZeroDivisionError" in capsys.readouterr().out
    await assert_alive(hub, transport.address)


async def test_a_dialler_survives_garbage(transport, nursery):
    """Whoever answers with garbage, too much, or nothing at all is unreachable."""
    chance = random.Random(3)

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(chance.randbytes(chance.choice([0, 1, 2, 100, 70_000])))

    listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])
    for _ in range(20):
        with pytest.raises(Unreachable):
            await transport.connect(address, None)


def make_hostile(peer: RawPeer) -> dict[str, bytes]:
    """Return byte strings that no honest peer writes after its handshake, by name."""
    ping = peer.seal(FrameType.PING)
    spoilt = bytearray(peer.seal(FrameType.CONTROL, bytes([KIND]) + b"hello"))
    spoilt[9] ^= 1
    return {"spoilt": ping + bytes(spoilt), "replayed": ping + ping, "relabelled": b"\0" + ping[1:]}


PLAIN_ATTACKS = {
    "empty control": [(FrameType.CONTROL, b"")],
    "endless control": [(FrameType.PART, bytes(MAX_PLAIN))] * (MAX_CONTROL // MAX_PLAIN + 1),
    "interrupted control": [(FrameType.PART, b"\x07"), (FrameType.PING, b"")],
    "data in a control": [
        (FrameType.BULK, encode_bulk_start(KIND, b"", 1)),
        (FrameType.PART, b"\x07"),
        (FrameType.DATA, b"1"),
    ],
    "data without bulk": [(FrameType.DATA, b"1")],
    "abort without bulk": [(FrameType.ABORT, b"")],
    "ping with a text": [(FrameType.PING, b"text")],
    "bulk in bulk": [(FrameType.BULK, encode_bulk_start(KIND, b"", 1))] * 2,
    "short bulk header": [(FrameType.BULK, b"123")],
    "huge bulk": [(FrameType.BULK, encode_bulk_start(KIND, b"", MAX_BULK + 1))],
    "too much data": [(FrameType.BULK, encode_bulk_start(KIND, b"", 1)), (FrameType.DATA, b"12")],
    "data in drops": [(FrameType.BULK, encode_bulk_start(KIND, b"", MAX_PLAIN)), (FrameType.DATA, b"1")],
}


@pytest.mark.parametrize("name", PLAIN_ATTACKS)
async def test_frames_out_of_place_end_the_link(hub, transport, name):
    """Correctly encrypted frames against the rules end that link only."""
    peer = await dial_raw(transport.address)
    for frame_type, plain in PLAIN_ATTACKS[name]:
        await peer.stream.send_all(peer.seal(frame_type, plain))
    await peer.closed()
    assert not hub.connected
    await assert_alive(hub, transport.address)
    await peer.stream.aclose()


@pytest.mark.parametrize("name", ["spoilt", "replayed", "relabelled"])
async def test_tampered_frames_end_the_link(hub, transport, name):
    """Changed, repeated and relabelled frames are noticed."""
    heard = []
    hub.on_control[KIND] = lambda peer, head: heard.append(head)
    peer = await dial_raw(transport.address)
    await peer.stream.send_all(make_hostile(peer)[name])
    await peer.closed()
    assert not heard
    await assert_alive(hub, transport.address)
    await peer.stream.aclose()


async def test_garbage_after_the_handshake_harms_nobody(hub, transport):
    """Random bytes on an authenticated link, also with allowed headers, end that link only."""
    chance = random.Random(4)
    for _ in range(30):
        peer = await dial_raw(transport.address)
        size = chance.choice([16, 17, 300, 5000])
        header = bytes([chance.randrange(6)]) + size.to_bytes(3, "big")
        try:
            await peer.stream.send_all(header * chance.randrange(2) + chance.randbytes(size))
            await peer.stream.send_eof()
            await peer.closed()
        except trio.BrokenResourceError:
            pass
        await peer.stream.aclose()
    await assert_alive(hub, transport.address)


@pytest.mark.parametrize("cut", [1, 4, 10, -1])
async def test_a_cut_frame_is_a_lost_link(transport, cut):
    """A connection that ends inside a frame is ConnectionLost, whatever arrived of it."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    await peer.stream.send_all(peer.seal(FrameType.CONTROL, bytes([KIND]) + b"hello")[:cut])
    await peer.stream.send_eof()
    with pytest.raises(ConnectionLost):
        await link.receive(refuse_bulk)
    await peer.stream.aclose()


async def test_an_announced_frame_size_allocates_nothing(transport):
    """A header beyond the limits is rejected before its frame is read; the error names the peer."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    await peer.stream.send_all(b"\0\xff\xff\xff")
    with pytest.raises(RemoteProtocolError) as error:
        await link.receive(refuse_bulk)
    assert error.value.peer == link.peer
    await peer.stream.aclose()


async def relay(nursery: trio.Nursery, target: Address, spoil_at: int) -> Address:
    """Return the address of a relay to ``target`` that flips one bit of the ``spoil_at``-th byte to it."""

    async def copy(source: trio.SocketStream, sink: trio.SocketStream, spoil_at: int) -> None:
        position = 0
        try:
            while data := bytearray(await source.receive_some()):
                if position <= spoil_at < position + len(data):
                    data[spoil_at - position] ^= 1
                position += len(data)
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def serve(stream: trio.SocketStream) -> None:
        onward = await trio.open_tcp_stream(target.host, target.port)
        async with stream, onward, trio.open_nursery() as both:
            both.start_soon(copy, stream, onward, spoil_at)
            await copy(onward, stream, 1 << 60)

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return Address("127.0.0.1", listeners[0].socket.getsockname()[1])


async def test_a_man_in_the_middle_can_only_cut(hub, transport, nursery, slow_clock):
    """Whatever bit a relay flips, in the handshake or later, nothing false is heard; unchanged, all of it is."""
    heard = []
    hub.on_control[KIND] = lambda peer, head: heard.append(head)
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as dialler:
        for position in [*range(0, 400, 23), 1 << 60]:
            address = await relay(nursery, transport.address, position)
            try:
                link = await dialler.connect(address, hub.me)
                for _ in range(20):
                    await link.send(KIND, b"hello")
                await link.finish()
                await link.receive(refuse_bulk)
            except NetworkError:
                pass
            assert set(heard) <= {b"hello"}
    while len(heard) < 20:
        await trio.lowlevel.checkpoint()


async def test_an_impostor_is_not_the_peer_asked_for(transport):
    """A peer with another identity at the right address is unreachable, and learns nothing about the dialler."""
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as impostor:
        with pytest.raises(Unreachable):
            await transport.connect(impostor.address, Identity.generate().peer_id)
        with trio.move_on_after(0.05) as scope:
            await impostor.accept()
        assert scope.cancelled_caught


async def test_a_port_in_use_is_a_configuration_error(transport):
    """Listening where somebody listens already says so."""
    with pytest.raises(ConfigError, match="another program"):
        async with open_tcp(Identity.generate(), TERMS, transport.address):
            pass


async def test_several_addresses_are_listened_at():
    """A transport is reached at each of its addresses, IPv4 and IPv6, and names the ports that the system chose."""
    listen = (LOOPBACK, Address("::1", 0), LOOPBACK)
    async with open_tcp(Identity.generate(), TERMS, *listen) as one, open_tcp(Identity.generate(), TERMS) as other:
        assert [address.host for address in one.addresses] == [address.host for address in listen]
        assert other.addresses == ()
        for address in one.addresses:
            link = await other.connect(address, None)
            theirs = await one.accept()
            assert theirs.host == address.host
            await link.aclose()


async def test_both_families_share_a_port():
    """All interfaces in IPv4 and all in IPv6 are two addresses, which may have one port."""
    async with (
        open_tcp(Identity.generate(), TERMS, Address("::", 0)) as probe,
        open_tcp(Identity.generate(), TERMS, Address("0.0.0.0", probe.address.port)) as beside,
    ):
        assert probe.address.port == beside.address.port


async def test_one_port_in_use_frees_the_others(transport):
    """Where one of several addresses is taken nobody listens at any of them afterwards."""
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as probe:
        free = probe.address
    with pytest.raises(ConfigError, match="another program"):
        async with open_tcp(Identity.generate(), TERMS, free, transport.address):
            pass
    async with open_tcp(Identity.generate(), TERMS, free):
        pass


async def test_errors_pass_through_the_transport_unwrapped():
    """An exception inside ``open_tcp`` comes out as itself, not in a group."""
    with pytest.raises(Unreachable):
        async with open_tcp(Identity.generate(), TERMS, LOOPBACK):
            raise Unreachable("for example")


async def test_a_frame_must_be_completed_in_time(transport, slow_clock):
    """A peer that drips a frame byte by byte is cut off 30 seconds after the frame began."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.drip, peer.seal(FrameType.CONTROL, bytes(1000)))
        with pytest.raises(ConnectionLost, match="silent"):
            await link.receive(refuse_bulk)
        nursery.cancel_scope.cancel()
    assert 30 <= trio.current_time() - begun < 32
    await peer.stream.aclose()


async def test_a_bulk_message_must_go_on(transport, slow_clock):
    """A peer that begins a bulk message and then only pings is cut off."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    await peer.stream.send_all(peer.seal(FrameType.BULK, encode_bulk_start(KIND, b"", 1)))

    async def ping() -> None:
        while True:
            await trio.sleep(5)
            await peer.stream.send_all(peer.seal(FrameType.PING))

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping)
        with pytest.raises(ConnectionLost):
            await link.receive(refuse_bulk)
        nursery.cancel_scope.cancel()
    assert 30 <= trio.current_time() - begun < 35
    await peer.stream.aclose()


async def test_silence_ends_a_link(transport, slow_clock):
    """A peer that writes nothing for 45 seconds is gone."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    begun = trio.current_time()
    with pytest.raises(ConnectionLost, match="silent"):
        await link.receive(refuse_bulk)
    assert 45 <= trio.current_time() - begun < 47
    await peer.stream.aclose()


async def test_pings_keep_an_idle_link(hub, transport, nursery, slow_clock):
    """Two peers with nothing to say stay connected for ten minutes."""
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as other:
        idle = Hub(other, other._credentials.peer_id)
        await nursery.start(lambda task_status: idle.run(task_status=task_status))
        await idle.connect(hub.me, transport.address)
        await trio.sleep(600)
        assert idle.is_connected(hub.me)
        assert hub.is_connected(idle.me)


async def test_a_peer_that_takes_nothing_is_given_up(transport, slow_clock):
    """A sender whose frame is stuck for 30 seconds loses the link, and so does whoever waits behind it."""
    peer = await dial_raw(transport.address)
    link: TcpLink = await transport.accept()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def send(payload: memoryview | None) -> None:
            with pytest.raises(ConnectionLost):
                await link.send(KIND, b"", payload)

        nursery.start_soon(send, memoryview(bytes(64 << 20)))
        await trio.sleep(1)
        nursery.start_soon(send, None)
    assert 30 <= trio.current_time() - begun < 35
    await peer.stream.aclose()


async def test_others_get_their_turn_while_much_is_here(transport, nursery):
    """Whoever reads messages that are here already lets other tasks run, at least once in sixteen frames."""
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as sender:
        link = await sender.connect(transport.address, None)
        for _ in range(160):
            await link.send(KIND, b"here")
        receiver, turns = await transport.accept(), 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(count_turns)
        for _ in range(160):
            await receiver.receive(lambda kind, head, size: None)
    assert turns >= 9


async def test_an_aborted_payload_never_arrives(transport):
    """After ABORT the next message of the link arrives and the partial payload does not."""
    peer = await dial_raw(transport.address)
    link = await transport.accept()
    memory = bytearray(MAX_PLAIN + 1)

    async def send() -> None:
        await peer.stream.send_all(peer.seal(FrameType.BULK, encode_bulk_start(KIND, b"", MAX_PLAIN + 1)))
        await peer.stream.send_all(peer.seal(FrameType.DATA, b"\1" * MAX_PLAIN))
        await peer.stream.send_all(peer.seal(FrameType.ABORT))
        await peer.stream.send_all(peer.seal(FrameType.CONTROL, bytes([KIND]) + b"next"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert (await link.receive(lambda kind, head, size: memoryview(memory))).head == b"next"
    assert memory == b"\1" * MAX_PLAIN + b"\0"
    await peer.stream.aclose()
