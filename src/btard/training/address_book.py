"""
Where the members were last: what a restarted peer tries before the DHT has found anybody.

A hint like the DHT itself: whoever answers at an address must prove its identity on the link.
"""

import json
import socket
from contextlib import suppress
from pathlib import Path

import structlog

from btard.errors import ConfigError
from btard.identity import PeerId
from btard.net import Address
from btard.training.meeting import DhtDirectory

log = structlog.get_logger(__name__)

ADDRESS_FILE = "addresses.json"
MAX_FILE = 1 << 20
"""Largest file, in bytes, that is read: 256 members with some addresses each take 100 KB."""


class AddressBook:
    """The DHT, and what it said of each member when it last knew; kept in a file."""

    def __init__(self, path: Path, directory: DhtDirectory) -> None:
        self._path, self._directory = path, directory
        self._known = read_addresses(path)

    async def find_addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where ``peer`` says it listens, then where it was last; empty if unknown."""
        found = await self._directory.find_addresses(peer)
        last = self._known.get(peer, ())
        if found and found != last:
            self._known[peer] = found
            self._write()
        return (*found, *(address for address in last if address not in found))

    @property
    def members(self) -> tuple[tuple[PeerId, Address], ...]:
        """Where others were last, as the file has it."""
        return tuple((peer, address) for peer, known in self._known.items() for address in known)

    def note(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """Remember where a peer is; ourselves too, to be there again after a restart."""
        if self._known.get(peer) != addresses:
            self._known[peer] = addresses
            self._write()

    def _write(self) -> None:
        """Replace the file; a hint is not worth an error."""
        text = json.dumps({peer.hex(): [str(item) for item in known] for peer, known in sorted(self._known.items())})
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_text(text)
            partial.replace(self._path)
        except OSError as error:
            log.warning("addresses are not kept", reason=str(error))


def find_last_place(path: Path, me: PeerId, listen: Address) -> Address:
    """Return ``listen``; where its port is 0, with the one that we had there before a restart, if that is free."""
    host = listen.host
    ports = [address.port for address in read_addresses(path).get(me, ()) if address.host == host]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports if not listen.port else ():
        with suppress(OSError), socket.create_server((host, port), family=family):
            return Address(host, port)
    return listen


def read_addresses(path: Path) -> dict[PeerId, tuple[Address, ...]]:
    """Return the members' last addresses; nothing where the file is missing or damaged."""
    known: dict[PeerId, tuple[Address, ...]] = {}
    with suppress(OSError, ValueError, AttributeError):
        if path.stat().st_size <= MAX_FILE:
            for peer, addresses in json.loads(path.read_text()).items():
                with suppress(ValueError, TypeError, ConfigError):  # what one announced is not the others' fault
                    known[PeerId(bytes.fromhex(peer))] = tuple(Address.parse(str(text)) for text in addresses)
    return known
