"""Networks for the tests: the same suite runs over TCP on loopback and in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest
import trio
import trio.testing
from tests.net.raw_peer import TERMS as RAW_TERMS

from btard.identity import Identity
from btard.net import Address, Hub, Limits, MemoryNetwork, TcpTransport, Terms, Transport, open_tcp

LOOPBACK = Address("127.0.0.1", 0)
TERMS = Terms(b"run", {"tau": bytes(8), "rounds": bytes(8)})


class OpenTransport(Protocol):
    """Makes a transport on the network under test."""

    def __call__(self, identity: Identity | None = None, terms: Terms = TERMS) -> Awaitable[Transport]: ...


@pytest.fixture(params=["tcp", "memory"])
async def open_transport(request: pytest.FixtureRequest, nursery: trio.Nursery) -> OpenTransport:
    """Return a function that opens transports of one kind; all are closed after the test."""
    network = MemoryNetwork()

    async def open_one(identity: Identity | None = None, terms: Terms = TERMS) -> Transport:
        identity = identity or Identity.generate()
        if request.param == "memory":
            return network.transport(identity, terms)
        return await nursery.start(hold_tcp, identity, terms)

    return open_one


async def hold_tcp(
    identity: Identity, terms: Terms, *, task_status: trio.TaskStatus[Transport] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep a TCP transport open until cancelled."""
    async with open_tcp(identity, terms, LOOPBACK) as transport:
        task_status.started(transport)
        await trio.sleep_forever()


@pytest.fixture
async def open_hub(open_transport: OpenTransport, nursery: trio.Nursery) -> Callable[..., Awaitable[Hub]]:
    """Return a function that starts hubs; their ``transport`` and ``address`` are attributes of what it returns."""

    async def open_one(identity: Identity | None = None, terms: Terms = TERMS, limits: Limits | None = None) -> Hub:
        identity = identity or Identity.generate()
        transport = await open_transport(identity, terms)
        hub = Hub(transport, identity.peer_id, limits)
        hub.address = transport.address
        await nursery.start(lambda task_status: hub.run(task_status=task_status))
        return hub

    return open_one


@pytest.fixture
async def transport() -> AsyncIterator[TcpTransport]:
    """Yield a listening transport."""
    async with open_tcp(Identity.generate(), RAW_TERMS, LOOPBACK) as transport:
        yield transport


@pytest.fixture
async def hub(transport: TcpTransport, nursery: trio.Nursery) -> Hub:
    """Return a running hub that listens at ``transport.address``."""
    hub = Hub(transport, transport._credentials.peer_id)
    await nursery.start(lambda task_status: hub.run(task_status=task_status))
    return hub


@pytest.fixture
def slow_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Return a virtual clock that jumps only when the sockets have been quiet for a moment."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock
