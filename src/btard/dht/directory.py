"""
Where is this peer? The DHT as the swarm sees it: announce, find, and nothing else.

A peer needs one bootstrap address that is up, or a node that it met before. Behind the two calls a
background task keeps the node in the DHT: it knocks at the bootstrap addresses and at nodes that
went out of sight, again and again, which is how two halves that lost each other meet; it looks up
its own neighbourhood, and publishes our record anew, often at first, while neighbours are still
arriving, then every `REFRESH_SECONDS`.

The `kademlia` package runs on asyncio. Its loop lives inside `open_directory`, in the same thread.
"""

import errno
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio_asyncio  # type: ignore[import-untyped]

from btard.dht.contact import Contact, contact_key, sign_contact
from btard.dht.datagram import NO_WORK, IdentityWork
from btard.dht.entrances import Entrances
from btard.dht.messages import BUCKET_SIZE
from btard.dht.newest import Newest
from btard.dht.protocol import Address
from btard.dht.sequence import SequenceFile
from btard.dht.server import HardenedServer, Network, on_udp, wall_clock_ms
from btard.dht.sight import Sight, View
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
KNOCK_WHEN_ALONE = 32
"""Remembered nodes tried at once while nobody answers."""
KNOCK_ALWAYS = 8
"""Remembered nodes out of sight that are tried at every refresh: a few packets a minute mend a split."""
SEQUENCE_FILE = "contact.sequence"
NODES_FILE = "nodes.json"

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
        entrances: Entrances,
        sequence: SequenceFile,
    ) -> None:
        self._server, self._loop = server, loop
        self._identity, self._run_id = identity, run_id
        self._entrances, self._sight = entrances, Sight()
        self._sequence, self._sequence_lock = sequence, trio.Lock()
        self._addresses: tuple[Address, ...] = ()
        self._tried, self._lost = trio.Event(), trio.Event()
        self._is_connected = False
        self._known_before = 0

    @property
    def known_nodes(self) -> int:
        """How many live nodes of the DHT we know."""
        return self._server.protocol.table.count

    @property
    def missing_nodes(self) -> int:
        """How many nodes went out of sight in the last minutes."""
        return len(self._sight.missing)

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
        newest = Newest(self._run_id, peer, wall_clock_ms)
        with trio.move_on_after(FIND_SECONDS):
            await self._tried.wait()
            await self._loop.run_aio_coroutine(self._server.get(contact_key(self._run_id, peer), newest))
        self._notice_loss()
        return newest.contact

    async def run(self) -> None:
        """Stay in the DHT until cancelled; started by `open_directory`."""
        pause = PAUSE_SECONDS_FIRST
        while True:
            if await self._refresh():
                pause = PAUSE_SECONDS_FIRST
            # Drawn, so that peers which started or lost each other together do not knock all at once.
            with trio.move_on_after(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                await self._lost.wait()
                pause = PAUSE_SECONDS_FIRST
            self._lost = trio.Event()
            pause = min(2 * pause, REFRESH_SECONDS if self._is_connected else RETRY_SECONDS_MAX)

    async def _refresh(self) -> bool:
        """Meet old acquaintances and our neighbourhood, then publish again; return whether much has changed."""
        has_changed = False
        try:
            with trio.move_on_after(BOOTSTRAP_SECONDS):
                await self._loop.run_aio_coroutine(self._server.bootstrap(await self._choose_entrances()))
            has_changed = self._report_connection() | self._report_sight()
            self._tried.set()
            if self._is_connected:
                await self._tell_others()
        except ConfigError as error:
            log.warning("our contact record is not renewed: %s", error)
        except Exception:  # the DHT is a hint: whatever breaks here must not end the training
            log.exception("refreshing the DHT failed; trying again")
        finally:
            self._tried.set()
        return has_changed

    async def _choose_entrances(self) -> list[Address]:
        """Return the addresses to knock at now: every bootstrap address, and some where a node answered once."""
        server = self._server
        family = server.family
        known = {(node.ip, node.port) for node in server.protocol.table.nodes}
        count = KNOCK_ALWAYS if known else KNOCK_WHEN_ALONE
        addresses = await self._entrances.resolve(family) + self._entrances.draw(count, family, known)
        return [address for address in dict.fromkeys(addresses) if address not in server.protocol.own_addresses]

    async def _tell_others(self) -> None:
        """Publish our record, and be heard of farther away if our neighbourhood is not all there is."""
        with trio.move_on_after(ANNOUNCE_SECONDS):
            if self._addresses:
                await self._publish()
            if self.known_nodes > BUCKET_SIZE:
                await self._loop.run_aio_coroutine(self._server.explore())

    async def _publish(self) -> None:
        """Sign our record with a new sequence number and store it with the nodes closest to its key."""
        async with self._sequence_lock:
            take = self._sequence.take
            sequence = await trio.to_thread.run_sync(take) if self._sequence.is_on_disk else take()
        expires_ms = wall_clock_ms() + LIFETIME_MS
        record = sign_contact(self._identity, self._run_id, self._addresses, sequence, expires_ms)
        key = contact_key(self._run_id, self._identity.peer_id)
        await self._loop.run_aio_coroutine(self._server.set_digest(key, record))

    def _report_connection(self) -> bool:
        """Log when we come in touch with the DHT, or when nobody answers; return whether that has changed.

        A founder has nobody to ask, and is content.
        """
        was_connected, self._is_connected = self._is_connected, self.known_nodes > 0
        if self._is_connected and not was_connected:
            log.info("in the DHT with %d known nodes", self.known_nodes)
        others = len(self._entrances.bootstrap) - len(self._server.protocol.own_addresses)
        if not self._is_connected and others > 0 and (was_connected or not self._tried.is_set()):
            names = ", ".join(f"{host}:{port}" for host, port in self._entrances.bootstrap)
            log.warning(
                "no DHT node answers at %s (UDP); trying until one does. Check address, firewall and this clock",
                names,
            )
        return was_connected != self._is_connected

    def _report_sight(self) -> bool:
        """Log when much of the DHT goes out of sight or comes back; return whether it did."""
        nodes = self._server.protocol.table.nodes
        self._entrances.note((node.ip, node.port) for node in nodes)
        view = self._sight.look(frozenset(node.id for node in nodes))
        self._known_before = len(nodes)
        match view:
            case View.LOST:
                log.warning(
                    "%d DHT nodes went out of sight and %d are left: they stopped together, or the network is split. "
                    "They are looked for at their last addresses",
                    self.missing_nodes,
                    len(nodes),
                )
            case View.BACK:
                log.info("the DHT nodes that went out of sight are back: %d are known", len(nodes))
            case View.MET:
                log.info("many DHT nodes came into sight at once, or two parts met: %d are known", len(nodes))
        return view is not View.USUAL

    def _notice_loss(self) -> None:
        """Make the background task act at once when half of the nodes we knew went silent."""
        if self._known_before and 2 * self.known_nodes <= self._known_before:
            self._lost.set()


@asynccontextmanager
async def open_directory(
    identity: Identity,
    run_id: bytes,
    listen: Address,
    bootstrap: Sequence[Address],
    *,
    state_dir: Path | None,
    work: IdentityWork = NO_WORK,
    network: Network = on_udp,
) -> AsyncIterator[Directory]:
    """Run a DHT node on UDP ``listen`` (host, port; 0 picks one) for the length of the block.

    Returns at once, also when every bootstrap node is down: they are retried in the background.
    ``state_dir`` keeps the sequence number of our record and the nodes that answered; ``None`` trusts the
    clock to rise and the bootstrap addresses to answer. ``work`` is ours and what is asked of others: a node
    without it is not heard, here and elsewhere. ``network`` is another than UDP in tests.
    Exceptions of the block come out as they went in, outside any group.

    Raises:
        ConfigError: the port is in use, cannot be listened on, or ``state_dir`` cannot be read.
    """
    sequence = SequenceFile(state_dir and state_dir / SEQUENCE_FILE, wall_clock_ms)
    entrances = Entrances(bootstrap, state_dir and state_dir / NODES_FILE)
    failure: Exception | None = None
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_loop_error)
        server = HardenedServer(identity, work, run_id, network)
        try:
            await _listen(loop, server, listen)
            async with trio.open_nursery() as nursery:
                directory = Directory(server, loop, identity, run_id, entrances, sequence)
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
