"""The hub over TCP and in memory: routing, requests, overflow, double dials, hostile handlers."""

import pytest
import trio
import trio.testing
from tests.net.hub_scenes import KIND, Mailbox, Vault, open_pair, wait_lost

from btard.errors import (
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimedOut,
)
from btard.identity import Identity
from btard.net import Hub, Limits, Loan
from btard.net.memory import HOST

MIB = 1 << 20


async def test_control_reaches_the_handler_of_its_kind(open_hub):
    """Control messages arrive in order at the handler of their kind, with the sender's identity; others are dropped."""
    one, two = await open_pair(open_hub)
    mailbox = Mailbox(two)
    one.send(two.me, KIND + 1, b"nobody listens")
    for number in range(100):
        one.send(two.me, KIND, b"%d" % number)
    assert [await mailbox.take() for _ in range(100)] == [(one.me, b"%d" % number) for number in range(100)]


async def test_connecting_twice_finds_the_link(open_hub):
    """A second ``connect`` returns the same peer and makes no second link."""
    one, two = await open_pair(open_hub)
    sent = one.traffic.protocol_sent
    assert await one.connect(two.me, two.address) == two.me
    assert one.traffic.protocol_sent == sent
    assert one.connected == {two.me}


async def test_sending_without_a_link_does_nothing(open_hub):
    """Messages to unknown peers vanish; a request to one fails at once."""
    hub, nobody = await open_hub(), Identity.generate().peer_id
    hub.send(nobody, KIND, b"")
    await hub.send_bulk(nobody, KIND, b"", memoryview(b""))
    hub.close(nobody, "never there")
    with pytest.raises(ConnectionLost):
        await hub.request(nobody, KIND, b"", timeout_s=1)


async def test_bulk_fills_the_sink_and_control_overtakes(open_hub):
    """A large payload arrives whole, refused ones are dropped, and control messages pass by."""
    one, two = await open_pair(open_hub)
    vault, mailbox = Vault(), Mailbox(two)
    two.bulk[KIND] = vault
    payload = bytes(range(256)) * (32 * MIB // 256)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_bulk, two.me, KIND, b"no thanks", memoryview(payload)[:MIB])
        await vault.begun.wait()
        nursery.start_soon(one.send_bulk, two.me, KIND, b"slice", memoryview(payload))
        nursery.start_soon(one.send_bulk, two.me, KIND + 1, b"nobody listens", memoryview(payload)[:9])
        one.send(two.me, KIND, b"urgent")
        assert (await mailbox.take())[1] == b"urgent"
        if one.address.host != HOST:  # in memory the payload takes no time
            assert vault._receive.statistics().current_buffer_used == 0
    assert await vault.take() == (one.me, b"slice", payload)


async def test_requests_are_answered(open_hub):
    """Many requests at once each get their own answer, with or without a payload."""
    one, two = await open_pair(open_hub)
    two.favour(lambda peer: True)

    async def double(peer, body):
        return body * 2, None

    async def fetch(peer, body):
        return b"here", Loan(memoryview(body * 1000), trio.CancelScope())

    two.serve[1], two.serve[2] = double, fetch

    async def ask(number: int) -> None:
        body = b"%d" % number
        assert (await one.request(two.me, 1, body, timeout_s=10)).head == body * 2
        answer = await one.request(two.me, 2, body, timeout_s=10, sink=lambda head, size: memoryview(bytearray(size)))
        assert (answer.kind, answer.head, bytes(answer.payload)) == (2, b"here", body * 1000)

    async with trio.open_nursery() as nursery:
        for number in range(100):  # more than may be open at once
            nursery.start_soon(ask, number)


async def test_a_slow_answer_times_out(open_hub):
    """A request without an answer ends in time, and a late or unknown answer does no harm."""
    one, two = await open_pair(open_hub)
    late = trio.Event()

    async def slow(peer, body):
        await late.wait()
        return b"late", None

    async def fast(peer, body):
        return b"fast", None

    two.serve[1], two.serve[2] = slow, fast
    for kind in (1, 99):
        with pytest.raises(RequestTimedOut):
            await one.request(two.me, kind, b"", timeout_s=0.05)
    late.set()
    assert (await one.request(two.me, 2, b"", timeout_s=10)).head == b"fast"


async def test_a_request_waits_for_a_handler_that_comes_later(open_hub):
    """Peers start at different times: who asks early is answered as soon as anybody can."""
    one, two = await open_pair(open_hub)
    answers = []

    async def serve(peer, body):
        return b"here", None

    async def ask() -> None:
        answers.append(await one.request(two.me, 1, b"", timeout_s=10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with pytest.raises(RequestTimedOut):
            await one.request(two.me, 2, b"", timeout_s=0.05)  # by then the other question has arrived
        two.serve[1] = serve
    assert [answer.head for answer in answers] == [b"here"]


async def test_a_refused_answer_is_no_answer(open_hub):
    """An answer whose payload the sink refuses ends the request but not the link."""
    one, two = await open_pair(open_hub)

    async def fetch(peer, body):
        return b"", Loan(memoryview(bytes(MIB)), trio.CancelScope())

    two.serve[1] = fetch
    with pytest.raises(RequestTimedOut, match="refused"):
        await one.request(two.me, 1, b"", timeout_s=10, sink=lambda head, size: None)
    assert one.is_connected(two.me)


async def test_an_answer_after_the_deadline_leaves_the_memory_alone(open_hub):
    """Once a request is over, nothing more is written into the memory that its sink gave."""
    one, two = await open_pair(open_hub)
    memory, begun = bytearray(64 * MIB), trio.Event()

    async def fetch(peer, body):
        return b"", Loan(memoryview(b"\1" * (64 * MIB)), trio.CancelScope())

    def sink(head, size):
        begun.set()
        return memoryview(memory)

    async def echo(peer, body):
        return body, None

    two.serve[1], two.serve[2] = fetch, echo
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            await one.request(two.me, 1, b"", timeout_s=10, sink=sink)

        nursery.start_soon(ask)
        await begun.wait()
        nursery.cancel_scope.cancel()
    memory[:] = bytes(64 * MIB)
    answer = await one.request(two.me, 2, b"next", timeout_s=10)
    assert answer.head == b"next"
    assert not any(memory)


async def test_an_answer_with_an_unwanted_payload_ends_the_link(open_hub):
    """Whoever sends a payload to a request that wants none breaks the rules."""
    one, two = await open_pair(open_hub)

    async def fetch(peer, body):
        return b"", Loan(memoryview(b"x"), trio.CancelScope())

    two.serve[1] = fetch
    with pytest.raises(ConnectionLost, match="not asked for"):
        await one.request(two.me, 1, b"", timeout_s=10)
    assert not one.is_connected(two.me)


@pytest.mark.parametrize("kind", [KIND, 254, 255])
async def test_a_handler_that_objects_ends_the_link_only(open_hub, kind):
    """RemoteProtocolError from a handler closes that link; the hub and its other links go on."""
    one, two = await open_pair(open_hub)
    three = await open_hub()
    await three.connect(two.me, two.address)
    mailbox = Mailbox(two)

    def object_to(peer, head):
        raise RemoteProtocolError("nonsense")

    two.on_control[KIND + 1] = object_to
    one._sessions[two.me].send(KIND + 1 if kind == KIND else kind, b"bad")
    await wait_lost(two, one.me)
    await wait_lost(one, two.me)
    three.send(two.me, KIND, b"hello")
    assert await mailbox.take() == (three.me, b"hello")


async def test_a_server_that_objects_ends_the_link(open_hub):
    """RemoteProtocolError while answering closes the link, and the asker learns of it."""
    one, two = await open_pair(open_hub)

    async def object_to(peer, body):
        raise RemoteProtocolError("nonsense")

    two.serve[1] = object_to
    with pytest.raises(ConnectionLost):
        await one.request(two.me, 1, b"", timeout_s=10)


async def test_a_full_outbox_ends_the_link(open_hub, monkeypatch):
    """A peer that takes too little is closed, by number of messages and by bytes."""
    for limits, head in [(Limits(outbox_messages=10), b""), (Limits(outbox_bytes=10_000), bytes(1000))]:
        one, two = await open_pair(open_hub, limits=limits)
        monkeypatch.setattr("btard.net.pipe.PIPE_MESSAGES", 0)
        one.favour(lambda peer: True)
        for _ in range(11):
            one.send(two.me, KIND, head)
        assert not one.is_connected(two.me)
        await wait_lost(two, one.me)


async def test_too_many_questions_are_dropped(open_hub):
    """A peer never answers more requests at once than its limit."""
    one, two = await open_hub(), await open_hub(limits=Limits(answers=3))
    two.favour(lambda peer: True)
    await one.connect(two.me, two.address)
    running, go_on = [], trio.Event()

    async def slow(peer, body):
        running.append(body)
        await go_on.wait()
        return body, None

    two.serve[1] = slow
    answers = []

    async def ask(number: int) -> None:
        try:
            answers.append(await one.request(two.me, 1, b"%d" % number, timeout_s=0.2))
        except RequestTimedOut:
            go_on.set()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number)
    assert len(running) == 3


async def test_closing_is_noticed_on_both_sides(open_hub):
    """``close`` ends the link at once here and soon there; everybody who waited is released."""
    one, two = await open_pair(open_hub)

    async def never(peer, body):
        await trio.sleep_forever()

    two.serve[1] = never
    lost = []
    one.on_lost = lost.append
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ConnectionLost, match="enough"):
                await one.request(two.me, 1, b"", timeout_s=10)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        one.close(two.me, "enough")
        assert not one.is_connected(two.me)
    assert lost == [two.me]
    await wait_lost(two, one.me)


async def test_a_lost_peer_can_come_back(open_hub):
    """After a link was lost, connecting again makes a new one that works."""
    one, two = await open_pair(open_hub)
    one.close(two.me, "try again")
    await wait_lost(two, one.me)
    mailbox = Mailbox(two)
    await one.connect(two.me, two.address)
    one.send(two.me, KIND, b"again")
    assert (await mailbox.take())[1] == b"again"


@pytest.mark.parametrize("repetition", range(5))
async def test_dialling_each_other_loses_nothing(open_hub, repetition):
    """If both dial at once, both keep one working link, and messages queued meanwhile all arrive."""
    one, two = await open_hub(), await open_hub()
    mailboxes = {hub.me: Mailbox(hub) for hub in (one, two)}
    lost = []
    one.on_lost = two.on_lost = lost.append

    async def dial(hub: Hub, other: Hub) -> None:
        await hub.connect(other.me, other.address)
        for number in range(200):
            hub.send(other.me, KIND, b"%d" % number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, one, two)
        nursery.start_soon(dial, two, one)
    for hub in (one, two):
        received = [int((await mailboxes[hub.me].take())[1]) for _ in range(200)]
        assert sorted(received) == list(range(200))
    while any(len(hub._sessions[other.me]._lanes) > 1 for hub, other in [(one, two), (two, one)]):
        await trio.lowlevel.checkpoint()
    kept = [hub._sessions[other.me]._lanes[0].link.serial for hub, other in [(one, two), (two, one)]]
    assert kept[0] == kept[1]
    assert not lost


async def test_dialling_twice_keeps_the_later_link(open_hub):
    """Two links from one dialler become one, and nothing is lost."""
    one, two = await open_pair(open_hub)
    mailbox, lost = Mailbox(two), []
    one.on_lost = two.on_lost = lost.append
    for number in range(100):
        one.send(two.me, KIND, b"%d" % number)
    await one.connect(None, two.address)
    for number in range(100, 200):
        one.send(two.me, KIND, b"%d" % number)
    assert sorted([int((await mailbox.take())[1]) for _ in range(200)]) == list(range(200))
    assert not lost


async def test_cancelled_bulk_frees_its_memory(open_hub):
    """A cancelled ``send_bulk`` returns at once; what its memory then holds never arrives as whole."""
    one, two = await open_pair(open_hub)
    vault = Vault()
    two.bulk[KIND] = vault
    memory = bytearray(64 * MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_bulk, two.me, KIND, b"cancelled", memoryview(memory))
        nursery.start_soon(one.send_bulk, two.me, KIND, b"cancelled", memoryview(memory))
        await vault.begun.wait()
        nursery.cancel_scope.cancel()
    memory[:] = b"\1" * len(memory)
    await one.send_bulk(two.me, KIND, b"after", memoryview(b"whole"))
    received = [await vault.take()]
    while received[-1][1] != b"after":
        received.append(await vault.take())
    assert all(1 not in payload for _, head, payload in received if head == b"cancelled")


async def test_flush_waits_for_the_outbox(open_hub):
    """After ``flush`` every control message is on its way, so a hub may leave without losing its last words."""
    one, two = await open_pair(open_hub)
    mailbox = Mailbox(two)
    for _ in range(1000):
        one.send(two.me, KIND, bytes(100))
    await one.flush()
    one.close(two.me, "leaving")
    for _ in range(1000):
        await mailbox.take()


async def test_the_hubs_own_kinds_are_not_for_the_protocol(open_hub):
    """Kinds 254 and 255 cannot be sent by users of the hub."""
    one, two = await open_pair(open_hub)
    with pytest.raises(LocalProtocolError):
        one.send(two.me, 254, b"")


async def test_wait_connected_waits_for_all(open_hub):
    """``wait_connected`` returns when the last of the peers is there."""
    one, two, three = [await open_hub() for _ in range(3)]
    await one.connect(two.me, two.address)
    with trio.move_on_after(0.05) as scope:
        await one.wait_connected([two.me, three.me])
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.wait_connected, [two.me, three.me])
        await three.connect(one.me, one.address)


async def test_cancelling_the_hub_closes_its_links(open_transport):
    """A cancelled hub ends without an error, and its peers notice."""
    ids = [Identity.generate(), Identity.generate()]
    transports = [await open_transport(identity) for identity in ids]
    one, two = (Hub(transport, identity.peer_id) for transport, identity in zip(transports, ids, strict=True))
    async with trio.open_nursery() as outer:
        await outer.start(lambda task_status: two.run(task_status=task_status))
        async with trio.open_nursery() as inner:
            await inner.start(lambda task_status: one.run(task_status=task_status))
            await one.connect(two.me, transports[1].address)
            await two.wait_connected([one.me])
            inner.cancel_scope.cancel()
        await wait_lost(two, one.me)
        assert not one.connected
        outer.cancel_scope.cancel()
