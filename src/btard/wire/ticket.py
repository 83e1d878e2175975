"""Run tickets: what one pastes to a friend so that they find the run (design section 6)."""

import base64
import binascii
from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import ConfigError, RemoteProtocolError
from btard.rules.messages import Bytes32, OptionalDigest
from btard.wire.codec import decode, encode

PREFIX = "btard1-"
MAX_BOOTSTRAP = 16


class Ticket(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A run's id, its founder's key, and addresses ("host:port") where some of its peers listen."""

    run_id: Bytes32
    founder: Bytes32
    bootstrap: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=MAX_BOOTSTRAP)]
    seal: OptionalDigest = b""


def format_ticket(ticket: Ticket) -> str:
    """Return the ticket as one word that survives chat programs: btard1-..."""
    return PREFIX + base64.urlsafe_b64encode(encode(ticket)).decode().rstrip("=")


def parse_ticket(text: str) -> Ticket:
    """Return the ticket in ``text``.

    Raises:
        ConfigError: not a ticket; the message says what one looks like.
    """
    word = text.strip()
    advice = f"a ticket is one word that begins with {PREFIX}: paste the line that the founder printed"
    if not word.startswith(PREFIX):
        raise ConfigError(f"{word[:24]!r} is not a run ticket; {advice}")
    body = word.removeprefix(PREFIX)
    try:
        ticket: Ticket = decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), Ticket)
    except (binascii.Error, ValueError, RemoteProtocolError):
        raise ConfigError(f"the ticket is damaged or cut short; {advice}") from None
    return ticket
