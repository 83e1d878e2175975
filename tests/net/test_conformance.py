"""What every link promises, over TCP and in memory alike."""

import random

import pytest
import trio
import trio.testing

from btard.errors import ConnectionLost, LocalProtocolError, Refused, Unreachable
from btard.identity import Identity
from btard.net import MAX_CONTROL, MAX_HEADER, WINDOW, Address, Link, Terms, Transport, Window, refuse_bulk

MIB = 1 << 20


async def join(open_transport) -> tuple[Link, Link]:
    """Return both ends of a new link."""
    dialler, listener = await open_transport(), await open_transport()
    return await join_transports(dialler, listener)


async def join_transports(dialler: Transport, listener: Transport) -> tuple[Link, Link]:
    """Return the dialler's and the listener's end of a new link."""
    ours = await dialler.connect(listener.address, None)
    return ours, await listener.accept()


class Collector:
    """A sink that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bytes, int]] = []

    def __call__(self, kind: int, head: bytes, size: int) -> memoryview:
        self.asked.append((kind, head, size))
        return memoryview(bytearray(size))


async def test_both_ends_know_each_other(open_transport):
    """A link names the identity of the other side, and both ends have the same serial number."""
    one, two = Identity.generate(), Identity.generate()
    ours, theirs = await join_transports(await open_transport(one), await open_transport(two))
    assert (ours.peer, theirs.peer) == (two.peer_id, one.peer_id)
    assert ours.serial == theirs.serial


async def test_serials_grow(open_transport):
    """A later link of the same dialler has a larger serial number."""
    dialler, listener = await open_transport(), await open_transport()
    first, _ = await join_transports(dialler, listener)
    second, _ = await join_transports(dialler, listener)
    assert second.serial > first.serial


async def test_control_keeps_its_order(open_transport):
    """Control messages of all sizes arrive in order, in both directions."""
    ours, theirs = await join(open_transport)
    messages = [(size % 256, bytes([size % 251]) * size) for size in [0, 1, 500, 300_000, 7, MAX_CONTROL, 2]]

    async def send_all(link: Link) -> None:
        for kind, head in messages:
            await link.send(kind, head)

    for sender, receiver in [(ours, theirs), (theirs, ours)]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, sender)
            received = [await receiver.receive(refuse_bulk) for _ in messages]
        assert [(message.kind, message.head) for message in received] == messages


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 * MIB + 5])
async def test_bulk_goes_into_the_sink(open_transport, size):
    """A payload fills exactly the memory that the sink gave for it."""
    ours, theirs = await join(open_transport)
    payload = bytes(range(256)) * (size // 256 + 1)
    sink = Collector()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 9, b"head", memoryview(payload)[:size])
        message = await theirs.receive(sink)
    assert sink.asked == [(9, b"head", size)]
    assert (message.kind, message.head, bytes(message.payload)) == (9, b"head", payload[:size])


@pytest.mark.parametrize("size", [1, WINDOW, WINDOW + 1, 5 * WINDOW + 7])
@pytest.mark.parametrize("length", [WINDOW, 2 * WINDOW])
async def test_a_payload_passes_through_a_window(open_transport, size, length):
    """Whoever gives a window sees every byte in its place before it is overwritten, in order."""
    ours, theirs = await join(open_transport)
    payload, memory, passed = random.Random(size).randbytes(size), memoryview(bytearray(length)), bytearray()

    def take(received: int) -> None:
        for position in range(len(passed), received):
            passed.append(memory[position % length])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 9, b"head", memoryview(payload))
        message = await theirs.receive(lambda kind, head, size: Window(memory, take))
        nursery.start_soon(ours.send, 9, b"next")
        assert (await theirs.receive(refuse_bulk)).head == b"next"
    assert message.payload is memory
    assert passed == payload


async def test_control_overtakes_bulk(open_transport):
    """A control message sent after a large bulk message arrives before it is complete."""
    ours, theirs = await join(open_transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 1, b"", memoryview(bytes(64 * MIB)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ours.send, 2, b"urgent")
        await trio.testing.wait_all_tasks_blocked()
        assert (await theirs.receive(Collector())).head == b"urgent"
        assert (await theirs.receive(Collector())).kind == 1


async def test_refused_bulk_is_drained(open_transport):
    """A payload that the sink refuses is skipped, and the link goes on."""
    ours, theirs = await join(open_transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 1, b"", memoryview(bytes(MIB)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ours.send, 2, b"", memoryview(b"wanted"))
        message = await theirs.receive(lambda kind, head, size: memoryview(bytearray(size)) if kind == 2 else None)
    assert bytes(message.payload) == b"wanted"


async def test_bulk_keeps_its_order(open_transport):
    """Bulk messages sent by several tasks arrive whole, one after the other."""
    ours, theirs = await join(open_transport)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ours.send, number, b"", memoryview(bytes([number]) * MIB))
        received = [await theirs.receive(Collector()) for _ in range(5)]
    assert sorted(message.kind for message in received) == list(range(5))
    assert all(bytes(message.payload) == bytes([message.kind]) * MIB for message in received)


async def test_cancelled_bulk_is_forgotten(open_transport):
    """A sender cancelled before or inside a bulk message leaves a link that works; no part is taken for the whole."""
    ours, theirs = await join(open_transport)
    received = []

    async def receive_until_last() -> None:
        while not received or received[-1].kind != 3:
            received.append(await theirs.receive(Collector()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_until_last)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.send(1, b"never begun", memoryview(bytes(MIB)))
        with trio.move_on_after(0.001):
            await ours.send(1, b"", memoryview(bytes(64 * MIB)))
        await ours.send(3, b"", memoryview(b"whole"))
    assert bytes(received[-1].payload) == b"whole"
    assert all(len(message.payload) == 64 * MIB for message in received[:-1])


async def test_a_wrong_sink_is_our_mistake(open_transport):
    """A sink that gives memory of another size is reported as a bug of ours."""
    ours, theirs = await join(open_transport)
    await ours.send(1, b"", memoryview(b"12345"))
    with pytest.raises(LocalProtocolError):
        await theirs.receive(lambda kind, head, size: memoryview(bytearray(4)))


@pytest.mark.parametrize(
    ("kind", "head", "payload"),
    [(256, b"", None), (1, bytes(MAX_CONTROL + 1), None), (1, bytes(MAX_HEADER + 1), memoryview(b""))],
)
async def test_sending_too_much_is_our_mistake(open_transport, kind, head, payload):
    """A message beyond the limits of a link is never sent."""
    ours, _ = await join(open_transport)
    with pytest.raises(LocalProtocolError):
        await ours.send(kind, head, payload)


async def test_closing_ends_the_other_side(open_transport):
    """After one end closes, the other receives what was sent and then ConnectionLost; sending fails at both."""
    ours, theirs = await join(open_transport)
    await ours.send(1, b"last words")
    await ours.aclose()
    await ours.aclose()
    assert (await theirs.receive(refuse_bulk)).head == b"last words"
    with pytest.raises(ConnectionLost):
        await theirs.receive(refuse_bulk)
    for end in (ours, theirs):
        with pytest.raises(ConnectionLost):  # TCP notices at the second write
            for _ in range(100):
                await end.send(1, b"x" * 10_000)
    with pytest.raises(ConnectionLost):
        await ours.receive(refuse_bulk)


async def test_finishing_ends_one_direction(open_transport):
    """After ``finish`` the peer's receive ends, while it can still send."""
    ours, theirs = await join(open_transport)
    await ours.send(1, b"done")
    await ours.finish()
    assert (await theirs.receive(refuse_bulk)).head == b"done"
    with pytest.raises(ConnectionLost):
        await theirs.receive(refuse_bulk)
    await theirs.send(2, b"still here")
    assert (await ours.receive(refuse_bulk)).head == b"still here"
    with pytest.raises(ConnectionLost):
        await ours.send(3, b"")


async def test_another_configuration_is_refused(open_transport):
    """The message of a refusal names the fields that differ, and only those."""
    listener = await open_transport()
    dialler = await open_transport(terms=Terms(b"other", {"tau": b"different", "rounds": bytes(8), "own": bytes(8)}))
    with pytest.raises(Refused, match=r"^run configuration differs in: tau$"):
        await dialler.connect(listener.address, None)


async def test_another_run_is_refused(open_transport):
    """A newcomer whose ticket names another run is told so."""
    listener = await open_transport()
    dialler = await open_transport(terms=Terms(b"another"))
    with pytest.raises(Refused, match="another run"):
        await dialler.connect(listener.address, None)


async def test_a_ticket_is_enough(open_transport):
    """A newcomer without a configuration connects if its run is the right one."""
    listener = await open_transport()
    dialler = await open_transport(terms=Terms(b"run"))
    await join_transports(dialler, listener)


async def test_a_refused_peer_is_never_accepted(open_transport):
    """After a refusal the next link accepted is the next good one."""
    listener, good = await open_transport(), Identity.generate()
    bad = await open_transport(terms=Terms(b"another"))
    with pytest.raises(Refused):
        await bad.connect(listener.address, None)
    await (await open_transport(good)).connect(listener.address, None)
    assert (await listener.accept()).peer == good.peer_id


async def test_another_identity_is_unreachable(open_transport):
    """Whoever answers must be the peer that was asked for."""
    dialler, listener = await open_transport(), await open_transport()
    with pytest.raises(Unreachable, match="not"):
        await dialler.connect(listener.address, Identity.generate().peer_id)


async def test_the_right_identity_is_reached(open_transport):
    """A dialler that names the peer gets a link to it."""
    dialler, identity = await open_transport(), Identity.generate()
    listener = await open_transport(identity)
    assert (await dialler.connect(listener.address, identity.peer_id)).peer == identity.peer_id


async def test_we_do_not_dial_ourselves(open_transport):
    """Our own address is no peer."""
    transport = await open_transport()
    with pytest.raises(Unreachable, match="ourselves"):
        await transport.connect(transport.address, None)


async def test_nobody_there(open_transport):
    """An address where nobody listens is unreachable."""
    transport = await open_transport()
    with pytest.raises(Unreachable):
        await transport.connect(Address("127.0.0.1", 1), None)


async def test_traffic_is_the_same_on_both_sides(open_transport):
    """What one end counts as sent the other counts as received, data apart from protocol."""
    dialler, listener = await open_transport(), await open_transport()
    ours, theirs = await join_transports(dialler, listener)
    handshake = dialler.traffic.protocol_sent
    assert listener.traffic.protocol_received == handshake
    await ours.send(1, bytes(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 2, b"head", memoryview(bytes(MIB)))
        await theirs.receive(refuse_bulk)
        nursery.start_soon(ours.send, 3, b"")
        await theirs.receive(Collector())
        await theirs.receive(Collector())
    assert dialler.traffic.protocol_sent == listener.traffic.protocol_received == handshake + 121 + 21
    assert dialler.traffic.data_sent == listener.traffic.data_received == MIB + 9 + 4 + 5 * 20
