"""What is lent to a peer: its owner has it back when it says so, however slowly the peer reads."""

from weakref import ref

import numpy as np
import trio
import trio.testing
from tests.net.hub_scenes import KIND
from tests.net.raw_peer import dial_raw

from btard.net import Loan
from btard.net.frames import FrameType
from btard.net.requests import encode_request
from btard.net.session import REQUEST

SIZE = 16 << 20


async def test_a_peer_that_reads_nothing_keeps_nothing(transport, hub):
    """More messages than may wait, the first of them half written: all are let go at once, and the link stays."""
    peer = await dial_raw(transport.address)
    await trio.testing.wait_all_tasks_blocked(0.02)
    scopes, lent = [], []
    for _ in range(80):
        payload = np.zeros(SIZE, dtype=np.uint8)
        scopes.append(trio.CancelScope())
        lent.append(ref(payload))
        hub.offer_bulk(next(iter(hub.connected)), KIND, b"", Loan(payload.data, scopes[-1]))
    del payload
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert all(held() is not None for held in lent)
    for scope in scopes[:79]:
        scope.cancel()
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert [held() is not None for held in lent] == [False] * 79 + [True]
    assert hub.connected
    await peer.stream.aclose()


async def test_the_next_message_follows_one_that_was_taken_back(open_hub):
    """The rest of a payload is not sent any more, and what is lent after it arrives."""
    one, two = await open_hub(), await open_hub()
    await one.connect(two.me, two.address)
    await two.wait_connected([one.me])
    begun, arrived = trio.Event(), trio.Event()

    class Handler:
        def sink(self, peer, head, size):
            if head == b"first":
                begun.set()
            return memoryview(bytearray(size))

        def done(self, peer, head, payload):
            if head == b"second":
                arrived.set()

    two.bulk[KIND] = Handler()
    first, second = (Loan(memoryview(bytes(SIZE)), trio.CancelScope()) for _ in range(2))
    one.offer_bulk(two.me, KIND, b"first", first)
    await begun.wait()
    first.scope.cancel()
    one.offer_bulk(two.me, KIND, b"second", second)
    with trio.fail_after(10):
        await arrived.wait()


async def test_an_answer_has_an_end(transport, hub):
    """What is read too slowly by whoever asked for it is let go as well."""
    scopes, lent = [], []
    hub.favour(lambda peer: True)

    async def lend(peer, body):
        payload = np.zeros(SIZE, dtype=np.uint8)
        scopes.append(trio.CancelScope())
        lent.append(ref(payload))
        return b"", Loan(payload.data, scopes[-1])

    hub.serve[1] = lend
    peer = await dial_raw(transport.address)
    for number in range(10):
        await peer.stream.send_all(peer.seal(FrameType.CONTROL, bytes([REQUEST]) + encode_request(number, 1, b"")))
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert [held() is not None for held in lent] == [True] * 10
    for scope in scopes:
        scope.cancel()
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert not any(held() is not None for held in lent)
    assert hub.connected
    await peer.stream.aclose()
