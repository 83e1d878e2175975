"""Links that are listened to, over TCP and in memory: every message reaches one function, in the listener's context."""

from contextvars import ContextVar

import pytest
import trio
from tests.net.test_conformance import Collector, join

from btard.errors import ConnectionLost, RemoteProtocolError
from btard.net import refuse_bulk

WHO: ContextVar[str] = ContextVar("who listens", default="nobody")


async def test_a_listener_is_given_all_in_order(open_transport):
    """What was sent before and after somebody listens reaches it, payloads included; then the link is lost."""
    ours, theirs = await join(open_transport)
    taken = []

    async def speak() -> None:
        for number in range(20):
            await ours.send(number, b"control")
        await ours.send(77, b"bulk", memoryview(b"payload"))
        await ours.finish()

    await ours.send(100, b"early")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        with pytest.raises(ConnectionLost):
            await theirs.listen(Collector(), lambda item: taken.append((item.kind, bytes(item.payload or b""))))
    assert taken == [(100, b""), *((number, b"") for number in range(20)), (77, b"payload")]


async def test_what_the_function_raises_ends_the_listening(open_transport):
    """An error of the function is raised where somebody listens, and the other end is told nothing but a lost link."""
    ours, theirs = await join(open_transport)

    def refuse(message) -> None:
        raise RemoteProtocolError("nonsense", theirs.peer)

    await ours.send(1, b"nonsense")
    with pytest.raises(RemoteProtocolError, match="nonsense"):
        await theirs.listen(refuse_bulk, refuse)
    await theirs.aclose()
    with pytest.raises(ConnectionLost):
        await ours.receive(refuse_bulk)


async def test_a_function_runs_in_the_context_of_its_listener(open_transport):
    """Whoever sends, the function sees the context variables of the task that listens."""
    ours, theirs = await join(open_transport)
    seen = []

    async def listen() -> None:
        WHO.set("the listener")
        with pytest.raises(ConnectionLost):
            await theirs.listen(refuse_bulk, lambda message: seen.append(WHO.get()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        WHO.set("the sender")
        await ours.send(1, b"")
        await ours.finish()
    assert seen == ["the listener"]


async def test_sending_now_sends_or_does_nothing(open_transport):
    """A link that cannot send without waiting says so, and one that can has sent: never something in between."""
    ours, theirs = await join(open_transport)
    sent = [number for number in range(10) if ours.send_now(number, b"now")]
    await ours.finish()
    taken = []
    with pytest.raises(ConnectionLost):
        await theirs.listen(refuse_bulk, lambda message: taken.append(message.kind))
    assert taken == sent
    assert not ours.send_now(1, b"too late")
