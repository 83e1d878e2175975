"""Large payloads, which worker threads send and receive: what a link promises holds there as well."""

import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from tests.net.raw_peer import LOOPBACK, TERMS, RawPeer, dial_raw

from btard.errors import ConnectionLost, RemoteProtocolError
from btard.identity import Identity, PeerId
from btard.net import Hub, TcpTransport, Window, open_tcp, refuse_bulk
from btard.net.frames import MAX_PLAIN, FrameKey, FrameType, encode_bulk_start
from btard.net.tcp_link import TcpLink

KIND = 7
FRAMES = 6
SIZE = FRAMES * MAX_PLAIN
START = FrameType.BULK, encode_bulk_start(KIND, b"", SIZE)
FULL = FrameType.DATA, b"\1" * MAX_PLAIN


async def meet(transport: TcpTransport) -> tuple[RawPeer, TcpLink]:
    """Return a raw peer and our link to it."""
    peer = await dial_raw(transport.address)
    return peer, await transport.accept()


async def write(peer: RawPeer, *frames: tuple[FrameType, bytes]) -> None:
    """Write frames, as far as they are read."""
    await peer.stream.send_all(b"".join(peer.seal(*frame) for frame in frames))


async def test_a_frame_of_many_must_be_completed_in_time(transport, slow_clock):
    """A peer that drips the second frame of a large payload is cut off 30 seconds after that frame began."""
    peer, link = await meet(transport)

    async def drip() -> None:
        await write(peer, START, FULL)
        await peer.drip(peer.seal(*FULL))

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ConnectionLost, match="silent"):
            await link.receive(lambda kind, head, size: memoryview(bytearray(size)))
        nursery.cancel_scope.cancel()
    assert 30 <= trio.current_time() - begun < 35
    await peer.stream.aclose()


WRONG = {
    "short": [(FrameType.DATA, b"\1" * (MAX_PLAIN - 1))],
    "another begins": [START],
    "data in a control": [(FrameType.PART, b"\7"), FULL],
}


@pytest.mark.parametrize("name", WRONG)
async def test_frames_out_of_place_are_noticed(transport, nursery, name):
    """What may not come inside a payload ends the link, with an error that names the peer."""
    peer, link = await meet(transport)
    nursery.start_soon(write, peer, START, FULL, *WRONG[name])
    with pytest.raises(RemoteProtocolError) as caught:
        await link.receive(lambda kind, head, size: memoryview(bytearray(size)))
    assert caught.value.peer == link.peer
    await peer.stream.aclose()


async def test_a_tampered_frame_is_noticed(transport, nursery):
    """A flipped bit in the midst of a payload ends the link, and is not written to its memory as if it were right."""
    peer, link = await meet(transport)
    data, memory = bytearray(b"".join(peer.seal(*frame) for frame in (START, FULL, FULL))), bytearray(SIZE)
    data[-1000] ^= 1
    nursery.start_soon(peer.stream.send_all, data)
    with pytest.raises(RemoteProtocolError, match="authentication") as caught:
        await link.receive(lambda kind, head, size: memoryview(memory))
    assert caught.value.peer == link.peer
    await peer.stream.aclose()


async def test_memory_that_was_taken_back_is_left_alone(transport):
    """After ``drop_bulk`` no more byte goes there and nobody is told; the link goes on behind the payload."""
    peer, link = await meet(transport)
    memory, seen = bytearray(SIZE), []

    async def send() -> None:
        await write(peer, START, FULL, FULL)
        await trio.testing.wait_all_tasks_blocked(0.05)
        link.drop_bulk(target)
        memory[:] = bytes(SIZE)
        seen.clear()
        await write(peer, *[FULL] * (FRAMES - 2), (FrameType.CONTROL, bytes([KIND]) + b"next"))

    target = memoryview(memory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert (await link.receive(lambda kind, head, size: Window(target, seen.append))).head == b"next"
    assert memory == bytes(SIZE)
    assert not seen
    await peer.stream.aclose()


async def test_a_link_ends_while_threads_are_at_work(transport):
    """Closed in the midst of payloads both ways, a link releases both at once and lets go of its socket."""
    peer, link = await meet(transport)
    ended = []

    async def expect_end(task: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionLost):
            await task()
        ended.append(task)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, peer, START, FULL, FULL)
        nursery.start_soon(expect_end, partial(link.send, KIND, b"", memoryview(bytes(64 << 20))))
        nursery.start_soon(expect_end, partial(link.receive, lambda kind, head, size: memoryview(bytearray(size))))
        await trio.testing.wait_all_tasks_blocked(0.02)
        await link.aclose()
    assert len(ended) == 2
    assert link._socket._socket.fileno() == -1
    await peer.stream.aclose()


async def test_whoever_reads_may_be_cancelled(transport):
    """A reader that is cancelled in the midst of a payload is gone at once, and the next one goes on where it was."""
    peer, link = await meet(transport)
    memory = memoryview(bytearray(SIZE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, peer, START, FULL, FULL)
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.move_on_after(0.05):
            await link.receive(lambda kind, head, size: memory)
        nursery.start_soon(write, peer, *[FULL] * (FRAMES - 2))
        assert (await link.receive(lambda kind, head, size: None)).payload is memory
    assert memory == b"\1" * SIZE
    await peer.stream.aclose()


def take_all(threads: trio.CapacityLimiter) -> None:
    """Leave no thread free."""
    for borrower in range(int(threads.total_tokens)):
        threads.acquire_on_behalf_of_nowait(borrower)


async def test_what_nobody_wants_takes_no_thread(transport):
    """Where all threads are taken a refused payload is thrown away all the same: a flood of them takes none."""
    peer, link = await meet(transport)
    take_all(transport._threads[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, peer, START, *[FULL] * FRAMES, (FrameType.CONTROL, bytes([KIND]) + b"next"))
        with trio.fail_after(10):
            assert (await link.receive(refuse_bulk)).head == b"next"
    await peer.stream.aclose()


async def test_what_comes_amid_a_payload_takes_no_thread(transport):
    """Messages and payloads given up need no thread: whoever interrupts its payloads holds none."""
    peer, link = await meet(transport)
    take_all(transport._threads[1])
    interruptions = [(FrameType.ABORT, b""), START, *[(FrameType.PING, b"")] * 10]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, peer, START, *interruptions, (FrameType.CONTROL, bytes([KIND]) + b"next"))
        with trio.fail_after(10):
            assert (await link.receive(lambda kind, head, size: memoryview(bytearray(size)))).head == b"next"
    await peer.stream.aclose()


async def test_where_no_thread_is_free_messages_go_on(transport):
    """A link whose payload found all threads taken writes it all the same, and messages overtake it."""
    peer, link = await meet(transport)
    take_all(transport._threads[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.send, KIND, b"", memoryview(bytes(SIZE)))
        nursery.start_soon(link.send, KIND, b"urgent")
        with trio.fail_after(10):
            received = 0
            while received < SIZE:
                received += len(await peer.stream.receive_some())
    await peer.stream.aclose()


async def test_a_thread_that_begins_after_the_cancellation_ends_nothing(transport, monkeypatch):
    """A sender may have its payload back before the thread for it can know: that one sends nothing, no link ends."""
    peer, link = await meet(transport)
    payload, scope = memoryview(bytes(SIZE)), trio.CancelScope()

    async def begin_late(work, outgoing, send, _check, most, *, limiter):
        scope.cancel()
        payload.release()
        return work(outgoing, send, lambda: None, most)

    monkeypatch.setattr("trio.to_thread.run_sync", begin_late)
    with scope:
        await link.send(KIND, b"", payload)
    assert scope.cancelled_caught
    await link.send(KIND, b"next")
    await link.aclose()
    await peer.stream.aclose()


async def test_a_payload_belongs_to_its_sender_once_it_cancelled(transport, monkeypatch):
    """A sender that is cancelled may overwrite its payload at once, though a thread was just reading it."""
    is_read, is_overwritten, seen = threading.Event(), threading.Event(), []
    seal = FrameKey.seal

    def seal_slowly(key: FrameKey, frame_type: FrameType, plain: bytes, out: memoryview) -> memoryview:
        if frame_type is FrameType.DATA:
            is_read.set()
            is_overwritten.wait(0.1)
            seen.append(plain[0])
        return seal(key, frame_type, plain, out)

    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as other, trio.open_nursery() as nursery:
        one, two = Hub(transport, transport._credentials.peer_id), Hub(other, other._credentials.peer_id)
        await nursery.start(one.run)
        await nursery.start(two.run)
        await one.connect(two.me, other.address)
        monkeypatch.setattr(FrameKey, "seal", seal_slowly)
        payload = bytearray(b"\1" * SIZE)
        async with trio.open_nursery() as sending:
            sending.start_soon(one.send_bulk, two.me, KIND, b"", memoryview(payload))
            await trio.to_thread.run_sync(is_read.wait)
            sending.cancel_scope.cancel()
        payload[:] = b"\2" * SIZE
        is_overwritten.set()
        await one.send_bulk(two.me, KIND, b"", memoryview(b"\1"))
        nursery.cancel_scope.cancel()
    assert set(seen) == {1}


async def test_memory_is_its_owners_again_once_a_session_ended(transport, hub):
    """When others learn that a peer is gone no thread is at a window of its payloads, nor comes there later."""
    began, disk, at_end, seen = threading.Event(), threading.Event(), [], []
    peer = await dial_raw(transport.address)

    def take(size: int) -> None:
        began.set()
        disk.wait(0.05)
        seen.append(size)

    class Handler:
        def sink(self, _peer: PeerId, head: bytes, size: int) -> Window:
            return Window(memoryview(bytearray(MAX_PLAIN)), take)

    hub.bulk[KIND] = Handler()
    hub.on_lost = lambda _peer: at_end.append(len(seen))
    await write(peer, START)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, peer, FULL, FULL)
        await trio.to_thread.run_sync(began.wait)
        hub.close(next(iter(hub.connected)), "a test")
    await peer.closed()
    await peer.stream.aclose()
    assert at_end == [len(seen)] == [1]
