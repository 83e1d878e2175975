"""The network in memory: faults on request, in virtual time."""

import pytest
import trio

from btard.errors import ConnectionLost, Unreachable
from btard.identity import Identity
from btard.net import Hub, MemoryNetwork, Terms, refuse_bulk
from btard.net.pipe import PIPE_MESSAGES

TERMS = Terms(b"run")


async def join(network: MemoryNetwork):
    """Return (dialler, listener, link, link) on ``network``."""
    one, two = (network.transport(Identity.generate(), TERMS) for _ in range(2))
    ours = await one.connect(two.address, two.peer_id)
    return one, two, ours, await two.accept()


async def test_messages_arrive_late_and_in_order(autojump_clock):
    """A message arrives after its delay, and never before one of its class that was sent earlier."""
    delays = {b"slow": 5.0, b"fast": 1.0, b"later": 7.0}
    _, _, ours, theirs = await join(MemoryNetwork(lambda sender, receiver, message: delays[message.head]))
    begun, arrivals = trio.current_time(), []
    for head in delays:
        await ours.send(1, head)
    for _ in delays:
        message = await theirs.receive(refuse_bulk)
        arrivals.append((message.head, round(trio.current_time() - begun, 6)))
    assert arrivals == [(b"slow", 5.0), (b"fast", 5.0), (b"later", 7.0)]


async def test_a_delay_may_end_while_the_receiver_waits(autojump_clock):
    """A quick control message wakes a receiver that waits for a slow bulk message."""
    _, _, ours, theirs = await join(MemoryNetwork(lambda sender, receiver, message: 10.0 if message.payload else 1.0))
    await ours.send(1, b"", memoryview(b"bulk"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 1, b"control")
        first = await theirs.receive(lambda kind, head, size: memoryview(bytearray(size)))
    assert (first.head, trio.current_time()) == (b"control", pytest.approx(1.0))


async def test_messages_can_be_lost():
    """The delivery function sees sender, receiver and message, and may lose it."""
    seen = []

    def lose_bulk(sender, receiver, message):
        seen.append((sender, receiver, message.kind))
        return None if message.payload is not None else 0.0

    one, two, ours, theirs = await join(MemoryNetwork(lose_bulk))
    await ours.send(1, b"", memoryview(b"lost"))
    await ours.send(2, b"arrives")
    assert (await theirs.receive(refuse_bulk)).head == b"arrives"
    assert seen == [(one.peer_id, two.peer_id, 1), (one.peer_id, two.peer_id, 2)]


async def test_a_vanished_peer_is_gone_for_all():
    """After ``disconnect`` both ends lose their links, and nobody reaches the peer, nor it anybody."""
    network = MemoryNetwork()
    one, two, ours, theirs = await join(network)
    network.disconnect(two.peer_id)
    for link in (ours, theirs):
        with pytest.raises(ConnectionLost):
            await link.receive(refuse_bulk)
        with pytest.raises(ConnectionLost):
            await link.send(1, b"")
    with pytest.raises(Unreachable):
        await one.connect(two.address, None)
    with pytest.raises(Unreachable):
        await two.connect(one.address, None)


async def test_a_vanished_peer_can_restart():
    """A new transport of the same identity is reachable at its new address."""
    network, identity = MemoryNetwork(), Identity.generate()
    one, first = network.transport(Identity.generate(), TERMS), network.transport(identity, TERMS)
    await one.connect(first.address, None)
    network.disconnect(identity.peer_id)
    second = network.transport(identity, TERMS)
    assert (await one.connect(second.address, identity.peer_id)).peer == identity.peer_id


async def test_a_full_pipe_makes_its_sender_wait():
    """Messages that nobody receives are bounded; the sender goes on when there is room."""
    _, _, ours, theirs = await join(MemoryNetwork())
    for _ in range(PIPE_MESSAGES):
        await ours.send(1, b"")
    with trio.move_on_after(0.01) as scope:
        await ours.send(1, b"")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, 1, b"")
        await theirs.receive(refuse_bulk)


async def test_a_peer_that_accepts_nobody_is_unreachable():
    """Links that nobody accepts are bounded."""
    network = MemoryNetwork()
    one, two = (network.transport(Identity.generate(), TERMS) for _ in range(2))
    with pytest.raises(Unreachable, match="accepts nobody"):
        for _ in range(1000):
            await one.connect(two.address, None)


async def test_a_swarm_of_hubs_in_virtual_time(autojump_clock):
    """Twelve hubs exchange a message each with each other under delays; all arrive when the slowest does."""
    network = MemoryNetwork(lambda sender, receiver, message: 0.5)
    identities = [Identity.generate() for _ in range(12)]
    transports = [network.transport(identity, TERMS) for identity in identities]
    hubs = [Hub(transport, transport.peer_id) for transport in transports]
    received = []
    async with trio.open_nursery() as nursery:
        for hub in hubs:
            hub.on_control[1] = lambda peer, head: received.append((peer, head))
            await nursery.start(lambda task_status, hub=hub: hub.run(task_status=task_status))
        for number, hub in enumerate(hubs):
            for other, transport in zip(hubs[number + 1 :], transports[number + 1 :], strict=True):
                await hub.connect(other.me, transport.address)
        for hub in hubs:
            await hub.wait_connected([other.me for other in hubs if other is not hub])
            for peer in hub.connected:
                hub.send(peer, 1, peer)
        await trio.sleep(0.6)
        nursery.cancel_scope.cancel()
    assert len(received) == len(set(received)) == 12 * 11
