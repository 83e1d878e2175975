"""
Where is this peer? The DHT as the swarm sees it: announce, find, and nothing else.

A peer needs one bootstrap address. Behind the two calls a background task keeps the node in the
DHT: it pings the bootstrap addresses again and again, which also mends two halves that lost sight
of each other, looks up its own neighbourhood, and publishes our record anew, often at first,
while neighbours are still arriving, then every `REFRESH_SECONDS`.

The `kademlia` package runs on asyncio. Its loop lives inside `open_directory`, in the same thread.
"""

import errno
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio_asyncio  # type: ignore[import-untyped]

from btard.dht.contact import Contact, contact_key, open_contact, sign_contact
from btard.dht.protocol import Address
from btard.dht.sequence import SequenceFile
from btard.dht.server import HardenedServer, wall_clock_ms
from btard.errors import ConfigError
from btard.identity import Identity, PeerId

FIND_SECONDS = 5.0
ANNOUNCE_SECONDS = 10.0
BOOTSTRAP_SECONDS = 10.0
LIFETIME_MS = 1_800_000
"""Validity of our records: half of what others accept, so clocks may differ by half an hour."""
PAUSE_SECONDS_FIRST = 1.0
REFRESH_SECONDS = 60.0
RETRY_SECONDS_MAX = 30.0
MAX_BOOTSTRAP = 32

log = logging.getLogger("btard.dht")


class Directory:
    """The peers' addresses, as they announce them; made by `open_directory`.

    Calls may run concurrently, from any task inside the ``async with`` block.
    """

    def __init__(
        self,
        server: HardenedServer,
        loop: trio_asyncio.TrioEventLoop,
        identity: Identity,
        run_id: bytes,
        bootstrap: Sequence[Address],
        sequence: SequenceFile,
    ) -> None:
        self._server, self._loop = server, loop
        self._identity, self._run_id = identity, run_id
        self._bootstrap = tuple(bootstrap)[:MAX_BOOTSTRAP]
        self._sequence, self._sequence_lock = sequence, trio.Lock()
        self._addresses: tuple[Address, ...] = ()
        self._tried, self._lost = trio.Event(), trio.Event()
        self._is_connected = False

    @property
    def known_nodes(self) -> int:
        """How many live nodes of the DHT we know."""
        return self._server.protocol.known_nodes

    @property
    def port(self) -> int:
        """The UDP port we listen on."""
        return self._server.port

    async def announce(self, addresses: Sequence[Address]) -> None:
        """Publish our (host, TCP port) pairs, now and until we leave; replaces the ones announced before.

        Ends within `ANNOUNCE_SECONDS`. Without neighbours the record waits with us until there are some.

        Raises:
            ConfigError: the addresses make no record, or the sequence number cannot be written.
        """
        pairs = tuple((host, port) for host, port in addresses)
        sign_contact(self._identity, self._run_id, pairs, 0, 0)
        self._addresses = pairs
        with trio.move_on_after(ANNOUNCE_SECONDS):
            await self._tried.wait()
            await self._publish()

    async def find(self, peer: PeerId) -> Contact | None:
        """Return the newest valid contact of ``peer`` among the nodes closest to its key, within `FIND_SECONDS`."""
        key = contact_key(self._run_id, peer)
        newest: Contact | None = None

        def consider(record: bytes) -> None:
            nonlocal newest
            contact = open_contact(self._run_id, key, record, wall_clock_ms())
            if contact is not None and (newest is None or contact.sequence > newest.sequence):
                newest = contact

        with trio.move_on_after(FIND_SECONDS):
            await self._tried.wait()
            await self._loop.run_aio_coroutine(self._server.get(key, consider))
        self._notice_loss()
        return newest

    async def run(self) -> None:
        """Stay in the DHT until cancelled; started by `open_directory`."""
        pause = PAUSE_SECONDS_FIRST
        while True:
            was_connected = self._is_connected
            await self._refresh()
            if was_connected != self._is_connected:
                pause = PAUSE_SECONDS_FIRST
            with trio.move_on_after(pause):
                await self._lost.wait()
                pause = PAUSE_SECONDS_FIRST
            self._lost = trio.Event()
            pause = min(2 * pause, REFRESH_SECONDS if self._is_connected else RETRY_SECONDS_MAX)

    async def _refresh(self) -> None:
        """Meet the bootstrap nodes and our neighbourhood again, then publish again; logs what fails."""
        try:
            with trio.move_on_after(BOOTSTRAP_SECONDS):
                addresses = await self._resolve_bootstrap()
                await self._loop.run_aio_coroutine(self._server.bootstrap(addresses))
            self._report_connection()
            self._tried.set()
            if self._is_connected and self._addresses:
                with trio.move_on_after(ANNOUNCE_SECONDS):
                    await self._publish()
        except ConfigError as error:
            log.warning("our contact record is not renewed: %s", error)
        except Exception:  # the DHT is a hint: whatever breaks here must not end the training
            log.exception("refreshing the DHT failed; trying again")
        finally:
            self._tried.set()

    async def _publish(self) -> None:
        """Sign our record with a new sequence number and store it with the nodes closest to its key."""
        async with self._sequence_lock:
            sequence = await trio.to_thread.run_sync(self._sequence.take)
        expires_ms = wall_clock_ms() + LIFETIME_MS
        record = sign_contact(self._identity, self._run_id, self._addresses, sequence, expires_ms)
        key = contact_key(self._run_id, self._identity.peer_id)
        await self._loop.run_aio_coroutine(self._server.set_digest(key, record))

    async def _resolve_bootstrap(self) -> list[Address]:
        """Return the bootstrap addresses that are not our own, as literal IP addresses; unknown names are left out."""
        family = self._server.transport.get_extra_info("socket").family
        found: dict[Address, None] = {}
        for host, port in self._bootstrap:
            try:
                entries = await trio.socket.getaddrinfo(host, port, family, trio.socket.SOCK_DGRAM)
            except (OSError, UnicodeError, OverflowError):
                continue
            found.update({(str(entry[4][0]), int(entry[4][1])): None for entry in entries})
        return [address for address in found if address not in self._server.protocol.own_addresses]

    def _report_connection(self) -> None:
        """Log one line when we come in touch with the DHT, and one when nobody answers; a founder has nobody to ask."""
        if self.known_nodes and not self._is_connected:
            log.info("in the DHT with %d known nodes", self.known_nodes)
            self._is_connected = True
            return
        others = len(self._bootstrap) - len(self._server.protocol.own_addresses)
        if not self.known_nodes and others > 0 and (self._is_connected or not self._tried.is_set()):
            names = ", ".join(f"{host}:{port}" for host, port in self._bootstrap)
            log.warning(
                "no DHT node answers at %s (UDP); trying until one does. Check address, firewall and this clock",
                names,
            )
        self._is_connected = self.known_nodes > 0

    def _notice_loss(self) -> None:
        """Make the background task act at once when the last neighbour went silent."""
        if self._is_connected and not self.known_nodes:
            self._lost.set()


@asynccontextmanager
async def open_directory(
    identity: Identity,
    run_id: bytes,
    listen: Address,
    bootstrap: Sequence[Address],
    *,
    state_path: Path | None,
) -> AsyncIterator[Directory]:
    """Run a DHT node on UDP ``listen`` (host, port; 0 picks one) for the length of the block.

    Returns at once, also when every bootstrap node is down: they are retried in the background.
    ``state_path`` keeps the sequence number of our record; ``None`` trusts the clock to rise.
    Exceptions of the block come out as they went in, outside any group.

    Raises:
        ConfigError: the port is in use, cannot be listened on, or ``state_path`` cannot be read.
    """
    sequence = SequenceFile(state_path, wall_clock_ms)
    failure: Exception | None = None
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_loop_error)
        server = HardenedServer(identity, run_id)
        try:
            await _listen(loop, server, listen)
            async with trio.open_nursery() as nursery:
                directory = Directory(server, loop, identity, run_id, bootstrap, sequence)
                nursery.start_soon(directory.run)
                try:
                    yield directory
                except Exception as error:  # noqa: BLE001  raised again below, where no nursery wraps it
                    failure = error
                nursery.cancel_scope.cancel()
        except ConfigError as error:
            failure = error
        finally:
            server.stop()
    if failure is not None:
        raise failure


async def _listen(loop: trio_asyncio.TrioEventLoop, server: HardenedServer, listen: Address) -> None:
    host, port = listen
    try:
        await loop.run_aio_coroutine(server.listen(port, host))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"UDP port {port} on {host} is in use; stop that program or listen elsewhere") from None
        raise ConfigError(f"cannot listen on UDP {host}:{port}: {error.strerror}; choose another address") from None


def _log_loop_error(_: object, context: dict[str, Any]) -> None:
    """Log what escaped a callback; the default of trio-asyncio ends the whole program for it."""
    log.error("error in the DHT's event loop: %s", context.get("message"), exc_info=context.get("exception"))
