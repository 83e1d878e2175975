"""A peer may have several links, of which the latest is used, and answer on any; what was checked stays as it is."""

import time

import pytest
import trio
from tests.net.raw_peer import TERMS

from btard.identity import Identity
from btard.net import Address, Hub, open_tcp, refuse_bulk
from btard.net.frames import MAX_PLAIN, FrameType, encode_bulk_start
from btard.net.requests import decode_request, encode_answer
from btard.net.session import ANSWER

LOOPBACK = Address("127.0.0.1", 0)
KIND, SIZE = 9, 4 * MAX_PLAIN
QUIET_S = 1.0
"""Virtual: it passes once the sockets have been quiet for a moment."""


async def test_one_answer_has_the_memory(slow_clock, nursery):
    """Where it was begun on one link, another on the second is none: the first would go on into what was checked."""
    me, other = Identity(b"m" * 32), Identity(b"o" * 32)
    buffer, answers = memoryview(bytearray(SIZE)), []
    async with open_tcp(me, TERMS, LOOPBACK) as transport, open_tcp(other, TERMS) as hostile:
        hub = Hub(transport, me.peer_id)
        await nursery.start(hub.run)
        first = await hostile.connect(transport.address, me.peer_id)
        await hub.wait_connected([other.peer_id])
        second = await hostile.connect(transport.address, me.peer_id)

        async def ask() -> None:
            answers.append(await hub.request(other.peer_id, KIND, b"", timeout_s=60, sink=lambda _, _size: buffer))

        await trio.sleep(QUIET_S)
        nursery.start_soon(ask)
        number, _, _ = decode_request((await second.receive(refuse_bulk)).head)
        head = encode_answer(number, b"")
        await first._writer.write([(FrameType.BULK, encode_bulk_start(ANSWER, head, SIZE))])
        await trio.sleep(QUIET_S)
        await second.send(ANSWER, head, memoryview(b"\2" * SIZE))
        await trio.sleep(QUIET_S)
        assert not answers
        assert not any(buffer)
        for _ in range(SIZE // MAX_PLAIN):
            await first._writer.write([(FrameType.DATA, b"\1" * MAX_PLAIN)])
        await trio.sleep(QUIET_S)
        assert [bytes(answer.payload) for answer in answers] == [b"\1" * SIZE]
        nursery.cancel_scope.cancel()


class Clocks:
    """What is asked for the time is the dialler of a link, then its accepter; the second link is dialled back."""

    def __init__(self, behind_s: int) -> None:
        self._now, self._behind_s = time.time_ns(), iter([0, behind_s, behind_s, 0])

    def time_ns(self) -> int:
        self._now += 10**9
        return self._now - 10**9 * next(self._behind_s)


@pytest.mark.parametrize("behind_s", [0, 3600, -3600])
@pytest.mark.parametrize("names", ["mo", "om"])
async def test_a_peer_that_dials_anew_is_heard_and_told_there(slow_clock, nursery, monkeypatch, names, behind_s):
    """It knows nothing of the link before, which is dead; its key may be the lower one, its clock behind or ahead."""
    me, other = (Identity(name.encode() * 32) for name in names)
    told = trio.Event()
    async with open_tcp(me, TERMS, LOOPBACK) as transport, open_tcp(other, TERMS, LOOPBACK) as crashed:
        hub = Hub(transport, me.peer_id)
        await nursery.start(hub.run)
        monkeypatch.setattr("btard.net.tcp.time", Clocks(behind_s))
        await hub.connect(other.peer_id, crashed.address)
        await crashed.accept()  # nothing comes from it ever, and it is not closed
        hub.on_connected = lambda peer: (hub.send(peer, KIND, b"what you missed"), told.set())
        restarted = await crashed.connect(transport.address, me.peer_id)
        with trio.fail_after(10):
            await told.wait()
            assert await restarted.receive(refuse_bulk) == (KIND, b"what you missed", None)
        nursery.cancel_scope.cancel()
