"""
How a peer finds its run: the configuration by a ticket, the founder by an address or the DHT.

Whoever answers at a bootstrap address may be any member, or nobody; only keys tell who is who.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

import structlog
import trio

from btard import dht
from btard.errors import ConfigError, NetworkError, Refused, Unreachable
from btard.identity import Identity, PeerId, short
from btard.net import Address, Hub, Terms, open_tcp
from btard.rules.config import RunConfig, format_run_file, parse_run_file
from btard.swarm.frames import Kind
from btard.wire import Ticket

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0
"""How long bootstrap addresses are tried: sixteen peers that start together on two cores take 16 s to listen."""
RETRY_S = 1.0
CONFIG_TIMEOUT_S = 10.0
MAX_RUN_FILE = 64 * 1024
"""Largest run file, in bytes, that is accepted from a peer; a usual one has 3,000."""
LOOPBACK = Address("127.0.0.1", 0)


@dataclass(frozen=True)
class Endpoint:
    """Where a peer listens, where it tells others to find it (if that differs), and whom it asks first."""

    listen: Address = LOOPBACK
    announce: Address | None = None
    bootstrap: tuple[Address, ...] = ()
    patience_s: float = PATIENCE_S

    def reachable_at(self, port: int) -> Address:
        """Return the address to announce, given the port that the system gave us.

        Raises:
            ConfigError: we listen everywhere, so nobody knows which address is ours.
        """
        if self.announce is not None:
            return self.announce
        if _is_wildcard(self.listen.host):
            raise ConfigError(
                f"{self.listen} listens on every interface; say where others reach it with --announce HOST:PORT"
            )
        return Address(self.listen.host, port)


def _is_wildcard(host: str) -> bool:
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
    """Return the configuration of a ticket's run, from the first bootstrap peer that answers.

    Raises:
        Unreachable: nobody answers.
        Refused: whoever answers belongs to another run, or its configuration is another run's.
    """
    addresses = [Address.parse(text) for text in ticket.bootstrap]
    async with open_tcp(identity, Terms(ticket.run_id), LOOPBACK) as tcp, trio.open_nursery() as nursery:
        hub = Hub(tcp, identity.peer_id)
        await nursery.start(hub.run)
        try:
            peer, address = await _reach_any(hub, addresses, patience_s)
            answer = await hub.request(peer, Kind.CONFIG, b"", timeout_s=CONFIG_TIMEOUT_S)
            config = _open_config(answer.head, ticket.run_id, f"{address} ({short(peer)})")
        finally:
            nursery.cancel_scope.cancel()
    return config


def _open_config(data: bytes, run_id: bytes, source: str) -> RunConfig:
    config = None
    if len(data) <= MAX_RUN_FILE:
        with suppress(UnicodeDecodeError, ConfigError):
            config = parse_run_file(data.decode())
    if config is None or config.run_id != run_id:
        raise Refused(f"the peer at {source} gave a configuration that is not the ticket's; get a ticket elsewhere")
    return config


async def _reach_any(hub: Hub, addresses: Sequence[Address], patience_s: float) -> tuple[PeerId, Address]:
    """Return the first peer that answers, and where."""
    deadline = trio.current_time() + patience_s
    while True:
        reasons = []
        for address in addresses:
            try:
                return await hub.connect(None, address), address
            except Unreachable as error:
                reasons.append(str(error))
        await _wait_or_give_up(deadline, reasons)


async def _wait_or_give_up(deadline: float, reasons: Sequence[str]) -> None:
    """Wait before the next try.

    Raises:
        Unreachable: time is over.
    """
    reason = "; ".join(reasons) or "the ticket names no address"
    if trio.current_time() >= deadline:
        raise Unreachable(f"{reason}. Start the founder first, and check address, port and firewall")
    log.info("no peer of the run answers yet", reason=reason)
    await trio.sleep(RETRY_S)


async def reach_founder(hub: Hub, directory: DhtDirectory, founder: PeerId, endpoint: Endpoint) -> None:
    """Return once there is a link to the founder, whose address the ticket names or the DHT knows.

    Raises:
        Unreachable: no bootstrap peer answers, or none knows the founder, for ``patience_s``.
        Refused: whoever answers belongs to another run or configuration.
    """
    deadline = trio.current_time() + endpoint.patience_s
    met: dict[Address, PeerId] = {}
    while not hub.is_connected(founder):
        reasons = []
        for address in endpoint.bootstrap:
            if not hub.is_connected(met.get(address, founder)):
                try:
                    met[address] = await hub.connect(None, address)
                except Unreachable as error:
                    reasons.append(str(error))
        if hub.connected and not hub.is_connected(founder):
            reasons.append(f"the founder {short(founder)} is not among those who answer")
            await _dial_found(hub, founder, await directory.find_addresses(founder))
        if not hub.is_connected(founder):
            await _wait_or_give_up(deadline, reasons)


async def _dial_found(hub: Hub, peer: PeerId, addresses: Sequence[Address]) -> None:
    for address in addresses:
        with suppress(NetworkError):
            await hub.connect(peer, address)
            return
