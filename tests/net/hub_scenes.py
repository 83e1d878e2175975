"""What the tests of the hub share: a mailbox, a vault for bulk data, two hubs that are connected."""

import trio

from btard.net import Hub

KIND = 7


class Mailbox:
    """Control messages in the order in which they came, and a way to wait for them."""

    def __init__(self, hub: Hub) -> None:
        self._send, self._receive = trio.open_memory_channel(float("inf"))
        hub.on_control[KIND] = lambda peer, head: self._send.send_nowait((peer, head))

    async def take(self) -> tuple[bytes, bytes]:
        return await self._receive.receive()


class Vault:
    """A bulk handler that keeps what arrives; refuses heads that start with ``no``."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(float("inf"))
        self.begun = trio.Event()

    def sink(self, peer, head, size):
        self.begun.set()
        return None if head.startswith(b"no") else memoryview(bytearray(size))

    def done(self, peer, head, payload) -> None:
        self._send.send_nowait((peer, head, bytes(payload)))

    async def take(self) -> tuple[bytes, bytes, bytes]:
        return await self._receive.receive()


async def open_pair(open_hub, **options) -> tuple[Hub, Hub]:
    """Return two connected hubs, the first of which dialled."""
    one, two = await open_hub(**options), await open_hub()
    await one.connect(two.me, two.address)
    await two.wait_connected([one.me])
    return one, two


async def wait_lost(hub: Hub, peer: bytes) -> None:
    """Return once ``hub`` has no link to ``peer``."""
    lost = trio.Event()
    hub.on_lost = lambda gone: lost.set()
    if hub.is_connected(peer):
        await lost.wait()
    assert not hub.is_connected(peer)
