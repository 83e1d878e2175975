"""
How a peer finds its run: the configuration by a ticket, the founder by an address or the DHT.

Whoever answers at a bootstrap address may be any member, a liar, or nobody; only keys tell who is who.
All addresses are tried at once, so that one which hangs delays no other, and again and again, ever
more rarely, as long as anybody who has not refused us may still come.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import structlog
import trio

from btard import dht
from btard.errors import ConfigError, NetworkError, Refused, Unreachable
from btard.identity import Identity, PeerId, short
from btard.net import Address, Hub, Terms, connect_to_any, open_tcp
from btard.rules.config import RunConfig, format_run_file, parse_run_file
from btard.swarm.frames import Kind
from btard.swarm.links import Directory
from btard.swarm.peer import find_cause
from btard.wire import Ticket

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0
"""How long bootstrap addresses are tried: sixteen peers that start together on two cores take 16 s to listen."""
RETRY_S = 1.0
RETRY_MAX_S = 4.0
"""Longest pause between two rounds of attempts; each is half as long again as the one before."""
CONFIG_TIMEOUT_S = 10.0
MAX_RUN_FILE = 64 * 1024
"""Largest run file, in bytes, that is accepted from a peer; a usual one has 3,000."""
MAX_REASON = 120
"""Characters of an error message in which a peer's words may be."""
LOOPBACK = Address("127.0.0.1", 0)


@dataclass(frozen=True)
class Endpoint:
    """Where a peer listens, where it tells others to find it (None: just there), and whom it asks first.

    Announcing nothing, ``()``, it only dials out. The first address of ``listen`` is that of its DHT node too.
    """

    listen: tuple[Address, ...] = (LOOPBACK,)
    announce: tuple[Address, ...] | None = None
    bootstrap: tuple[Address, ...] = ()
    patience_s: float = PATIENCE_S

    def find_announced(self, listening: tuple[Address, ...]) -> tuple[Address, ...]:
        """Return the addresses to announce of a peer that is ``listening`` there, ports as the system gave them.

        Raises:
            ConfigError: we listen everywhere, so nobody knows which address is ours.
        """
        if self.announce is not None:
            return self.announce
        for address in self.listen:
            if is_wildcard(address.host):
                raise ConfigError(
                    f"{address} listens on every interface; say where others reach it with --announce HOST:PORT, "
                    "or --announce none if nobody does"
                )
        return listening


def is_wildcard(host: str) -> bool:
    """Return whether who listens at ``host`` does so on every interface."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


class DhtDirectory:
    """The DHT, as the swarm's links ask it; see ``btard.swarm.links.Directory``."""

    def __init__(self, directory: dht.Directory) -> None:
        self._directory = directory

    async def find_addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where ``peer`` says it listens; empty if unknown."""
        contact = await self._directory.find(peer)
        return tuple(Address(host, port) for host, port in contact.addresses) if contact else ()


def serve_config(hub: Hub, config: RunConfig) -> None:
    """Answer whoever holds only a ticket with the run file."""
    text = format_run_file(config).encode()

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        return text, None

    hub.serve[Kind.CONFIG] = serve


async def fetch_config(identity: Identity, ticket: Ticket, patience_s: float = PATIENCE_S) -> RunConfig:
    """Return the configuration of a ticket's run, from the first bootstrap peer that has it.

    Raises:
        Unreachable: nobody answers.
        Refused: whoever answers belongs to another run, or gives another run's configuration.
    """
    try:
        async with open_tcp(identity, Terms(ticket.run_id), LOOPBACK) as tcp, trio.open_nursery() as nursery:
            hub = Hub(tcp, identity.peer_id)
            await nursery.start(hub.run)
            config = await _ask_all(hub, ticket, patience_s)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise find_cause(group) from None
    return config


async def _ask_all(hub: Hub, ticket: Ticket, patience_s: float) -> RunConfig:
    search = Search(trio.current_time() + patience_s)
    found: list[RunConfig] = []
    while True:
        async with trio.open_nursery() as nursery:

            async def ask(text: str) -> None:
                with search.attempt(text):
                    found.append(await _ask(hub, Address.parse(text), ticket.run_id))
                    nursery.cancel_scope.cancel()

            for text in ticket.bootstrap:
                nursery.start_soon(ask, text)
        if found:
            return found[0]
        await search.pause()


async def _ask(hub: Hub, address: Address, run_id: bytes) -> RunConfig:
    """Return the configuration that the peer at ``address`` gives, if it is the run's."""
    return await ask_for_config(hub, await hub.connect(None, address), run_id)


async def ask_for_config(hub: Hub, peer: PeerId, run_id: bytes) -> RunConfig:
    """Return the configuration that ``peer``, to whom there is a link, gives, if it is the run's.

    Raises:
        NetworkError: it gives none in time.
        Refused: it gives another one, or what this version of btard cannot read.
    """
    answer = await hub.request(peer, Kind.CONFIG, b"", timeout_s=CONFIG_TIMEOUT_S)
    reason = ""
    try:
        config = parse_run_file(answer.head[: MAX_RUN_FILE + 1].decode())
        if len(answer.head) <= MAX_RUN_FILE and config.run_id == run_id:
            return config
    except (UnicodeDecodeError, ConfigError) as error:
        reason = f" ({str(error)[:MAX_REASON]})"
    raise Refused(f"peer {short(peer)} gave a configuration that is not the ticket's run{reason}")


class Search:
    """Tries again and again until ``deadline``, and remembers why the last attempts failed."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._pause_s = RETRY_S
        self._reasons: list[str] = []
        self._refusals: list[str] = []

    @contextmanager
    def attempt(self, where: object) -> Iterator[None]:
        """Let the body fail for the network's or the other side's reasons."""
        try:
            yield
        except NetworkError as error:
            self.note(str(error))
        except Refused as error:
            self._refusals.append(f"{where}: {error}")

    def note(self, reason: str) -> None:
        """Remember why this round of attempts led nowhere."""
        self._reasons.append(reason)

    async def pause(self) -> None:
        """Wait before the next round of attempts.

        Raises:
            Refused: everybody refuses us, or time is over and somebody did: a liar, if the run is there after all.
            Unreachable: time is over.
        """
        reasons, refusals = "; ".join(self._reasons), "; ".join(self._refusals)
        left_s = self._deadline - trio.current_time()
        if refusals and (not reasons or left_s <= 0):
            others = f". Of the others: {reasons}" if reasons else ""
            raise Refused(f"{refusals}{others}. Is the ticket that of this run, and the run file unchanged?")
        reasons = reasons or "the ticket names no address"
        if left_s <= 0:
            raise Unreachable(f"{reasons}. Start the founder first, and check address, port and firewall")
        log.info("the run is not reached yet", reason=f"{refusals}; {reasons}" if refusals else reasons)
        self._reasons.clear()
        self._refusals.clear()
        await trio.sleep(min(self._pause_s, left_s))
        self._pause_s = min(1.5 * self._pause_s, RETRY_MAX_S)


async def reach_founder(hub: Hub, directory: Directory, founder: PeerId, endpoint: Endpoint) -> None:
    """Return once there is a link to the founder, whose address the ticket names or the DHT knows.

    The DHT is asked also where no bootstrap address answers: it may know nodes of earlier days.

    Raises:
        Unreachable: no bootstrap peer answers, or none knows the founder, for ``patience_s``.
        Refused: whoever answers belongs to another run or configuration.
    """
    search = Search(trio.current_time() + endpoint.patience_s)
    met: dict[Address, PeerId] = {}

    while True:
        async with trio.open_nursery() as nursery:

            async def meet(address: Address) -> None:
                with search.attempt(address):
                    met[address] = await hub.connect(None, address)
                if hub.is_connected(founder):
                    nursery.cancel_scope.cancel()

            for address in endpoint.bootstrap:
                if address not in met or not hub.is_connected(met[address]):
                    nursery.start_soon(meet, address)
        if not hub.is_connected(founder):
            if hub.connected:
                search.note(f"the founder {short(founder)} is not among those who answer")
            addresses = await directory.find_addresses(founder)
            if addresses:
                with search.attempt(" or ".join(map(str, addresses))):
                    await connect_to_any(hub, founder, addresses)
        if hub.is_connected(founder):
            return
        await search.pause()
