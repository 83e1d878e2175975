"""Messages to bytes and back: the only place where bytes of a peer become values."""

from btard.wire.chains import MAX_CHAIN, Cast, open_chain
from btard.wire.codec import MAX_MESSAGE, decode, encode
from btard.wire.envelope import open_header, open_message, prove_equivocation, sign_message, take_header
from btard.wire.seals import (
    compute_seal_digest,
    decode_seal,
    encode_seal,
    find_valid_signatures,
    is_seal_signed_by,
    sign_seal,
)
from btard.wire.ticket import Ticket, format_ticket, parse_ticket
from btard.wire.versions import NOT_INSTALLED, PROTOCOL, find_version

__all__ = [
    "MAX_CHAIN",
    "MAX_MESSAGE",
    "NOT_INSTALLED",
    "PROTOCOL",
    "Cast",
    "Ticket",
    "compute_seal_digest",
    "decode",
    "decode_seal",
    "encode",
    "encode_seal",
    "find_valid_signatures",
    "find_version",
    "format_ticket",
    "is_seal_signed_by",
    "open_chain",
    "open_header",
    "open_message",
    "parse_ticket",
    "prove_equivocation",
    "sign_message",
    "sign_seal",
    "take_header",
]
