"""
Run tickets: what one pastes to a friend so that they find the run (design section 6).

The word is base64 of a CRC-32 and the ticket: a mistyped letter is called one, instead of leading to a run
that nobody knows.
"""

import base64
import binascii
import zlib
from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import ConfigError, RemoteProtocolError
from btard.rules.messages import Bytes32, OptionalDigest
from btard.wire.codec import decode, encode

PREFIX = "btard1-"
MAX_BOOTSTRAP = 16
CHECKSUM_SIZE = 4


class Ticket(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A run's id, its founder's key, and addresses ("host:port") where some of its peers listen."""

    run_id: Bytes32
    founder: Bytes32
    bootstrap: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=MAX_BOOTSTRAP)]
    seal: OptionalDigest = b""


def format_ticket(ticket: Ticket) -> str:
    """Return the ticket as one word that survives chat programs: btard1-..."""
    data = encode(ticket)
    return PREFIX + base64.urlsafe_b64encode(_compute_checksum(data) + data).decode().rstrip("=")


def _compute_checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM_SIZE, "big")


def parse_ticket(text: str) -> Ticket:
    """Return the ticket in ``text``.

    Raises:
        ConfigError: not a ticket, or not as it was printed; the message says what to do.
    """
    word = text.strip()
    advice = f"a ticket is one word that begins with {PREFIX}: paste the line that the founder printed"
    if not word.startswith(PREFIX):
        raise ConfigError(f"{word[:24]!r} is not a run ticket; {advice}")
    checksum, data = _split(word.removeprefix(PREFIX))
    if checksum == _compute_checksum(data) and (ticket := _decode(data)):
        return ticket
    if _decode(checksum + data):
        raise ConfigError("the ticket was printed by an older btard, without a checksum: ask the founder for a new one")
    raise ConfigError(f"the ticket is damaged, mistyped or cut short; {advice}")


def _split(body: str) -> tuple[bytes, bytes]:
    """Return the checksum and the ticket's bytes, nothing where the text is not base64."""
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b"", b""
    return data[:CHECKSUM_SIZE], data[CHECKSUM_SIZE:]


def _decode(data: bytes) -> Ticket | None:
    try:
        ticket: Ticket = decode(data, Ticket)
    except RemoteProtocolError:
        return None
    return ticket
