"""A ticket from a member: it leads to the members of now, and names a seal that a newcomer's line must have."""

from collections.abc import Iterable
from pathlib import Path

from btard.cli.status_measures import Status
from btard.dht.directory import NODES_FILE
from btard.dht.entrances import Entrances
from btard.identity import PeerId
from btard.net import Address, is_loopback
from btard.training.address_book import ADDRESS_FILE, read_addresses
from btard.training.meeting import is_wildcard
from btard.wire import Ticket, compute_seal_digest, format_ticket
from btard.wire.ticket import MAX_BOOTSTRAP

MAX_NODES = 8
"""Nodes of the DHT that a ticket names at most: who they are nobody has verified."""


def make_invitation(status: Status, directory: Path) -> str | None:
    """Return a ticket of the run through its newest signed seal; None from whoever is no member, or knows no address.

    It leads to members whose addresses were found, then to us, then to nodes of the run's DHT: peers listen there too.
    Old keys can forge another history of a run, but none that contains this seal: whoever trusts the sender needs
    no --trust-seal.
    """
    if status.signed is None or status.role != "member":
        return None
    known = read_addresses(directory / ADDRESS_FILE)
    members = [*(PeerId(peer) for peer in status.roster if peer != status.peer), status.peer]
    nodes = [Address(*place) for place in Entrances((), directory / NODES_FILE).remembered[:MAX_NODES]]
    addresses = order_addresses([*(address for peer in members for address in known.get(peer, ())), *nodes])
    if not addresses:
        return None
    digest = compute_seal_digest(status.signed)
    return format_ticket(Ticket(status.config.run_id, status.config.founder_id, addresses, digest))


def order_addresses(addresses: Iterable[Address]) -> tuple[str, ...]:
    """Return the addresses that others can dial, as words; those of one machine alone only if there are no others."""
    usable = [item for item in dict.fromkeys(addresses) if item.port and not is_wildcard(item.host)]
    elsewhere = [item for item in usable if not is_loopback(item.host)]
    return tuple(str(item) for item in (elsewhere or usable)[:MAX_BOOTSTRAP])
