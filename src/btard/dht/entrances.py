"""
Where to knock: the bootstrap addresses, and nodes that answered us before, kept on disk.

Bootstrap addresses may be down, or lead to liars. Whoever once found the swarm comes back without
them; and two parts that lost sight of each other still have each other's addresses.
"""

import logging
import random
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import msgspec
import trio

from btard.dht.blocks import block_of

Address = tuple[str, int]

MAX_BOOTSTRAP = 32
MAX_REMEMBERED = 256
MAX_REMEMBERED_PER_BLOCK = 4
MAX_KNOCKS = 1000
"""In vain, before an address is forgotten: hours to days at eight a minute in all; others may live there by then."""
MAX_FILE = 64 * 1024
"""Largest file, in bytes, that is read; a full one has 15,000."""

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_decoder = msgspec.json.Decoder(Annotated[list[tuple[str, _Port]], msgspec.Meta(max_length=MAX_REMEMBERED)])

log = logging.getLogger("btard.dht")


class Entrances:
    """Addresses at which a node of the DHT may answer. ``path`` ``None`` remembers nodes until the end only."""

    def __init__(self, bootstrap: Sequence[Address], path: Path | None) -> None:
        self.bootstrap = tuple(bootstrap)[:MAX_BOOTSTRAP]
        self._path = path
        # Longest silent first, with knocks in vain. Only nodes that answered get in, few of one block.
        self._remembered: dict[Address, int] = {}
        self._remember(_read(path) if path is not None else ())

    async def resolve(self, family: socket.AddressFamily) -> list[Address]:
        """Return the bootstrap addresses as literal IP addresses; names that nobody knows are left out."""
        found: dict[Address, None] = {}
        for host, port in self.bootstrap:
            with suppress(OSError, UnicodeError, OverflowError):
                entries = await trio.socket.getaddrinfo(host, port, family, trio.socket.SOCK_DGRAM)
                found.update({(str(entry[4][0]), int(entry[4][1])): None for entry in entries})
        return list(found)

    @property
    def remembered(self) -> tuple[Address, ...]:
        """Where nodes have answered, the longest silent last."""
        return tuple(reversed(self._remembered))

    def draw(self, count: int, family: socket.AddressFamily, present: Collection[Address]) -> list[Address]:
        """Return up to ``count`` remembered addresses to knock at that are not ``present``, drawn at random.

        While nobody is present the fault may be ours, and no knock counts as one in vain.
        """
        is_ipv6 = family == socket.AF_INET6
        absent = [one for one in self._remembered if one not in present and (":" in one[0]) == is_ipv6]
        drawn = random.sample(absent, min(count, len(absent)))
        for address in drawn if present else ():
            self._remembered[address] += 1
            if self._remembered[address] > MAX_KNOCKS:
                del self._remembered[address]
        return drawn

    def note(self, present: Iterable[Address]) -> None:
        """Remember that nodes answer at these addresses; on disk too, if some of them are new."""
        before = set(self._remembered)
        self._remember(present)
        if self._path is not None and set(self._remembered) != before:
            _write(self._path, list(self._remembered))

    def _remember(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self._remembered.pop(address, None)
            self._make_room(block_of(*address))
            self._remembered[address] = 0

    def _make_room(self, block: str) -> None:
        """Forget the longest silent address of a block that has its share, or of all when there are too many."""
        of_block = [address for address in self._remembered if block_of(*address) == block]
        if len(of_block) >= MAX_REMEMBERED_PER_BLOCK:
            del self._remembered[of_block[0]]
        elif len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


def _read(path: Path) -> list[Address]:
    """Return the addresses in ``path``; none where the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            saved = _decoder.decode(file.read(MAX_FILE))
        return [(str(ip_address(host)), port) for host, port in saved]
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        log.warning("%s is damaged or unreadable; the DHT is found through its bootstrap addresses only", path)
        return []


def _write(path: Path, addresses: list[Address]) -> None:
    """Replace the file in one step; a hint is not worth an error."""
    partial = path.with_name(path.name + ".new")
    try:
        partial.write_bytes(msgspec.json.encode(addresses))
        partial.replace(path)
    except OSError as error:
        log.warning("known DHT nodes are not kept: %s", error)
