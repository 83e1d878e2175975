"""A peer may have several links, and answer on any; what it answered and was checked stays as it is."""

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
