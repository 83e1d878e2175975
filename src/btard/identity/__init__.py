"""Keys, digests and proof of work: who signed it, what exactly was signed, and what a newcomer paid."""

from btard.identity.digests import DIGEST_SIZE, Context, digest, expand
from btard.identity.keys import (
    PEER_ID_SIZE,
    SIGNATURE_SIZE,
    Identity,
    PeerId,
    is_signed_by,
    load_identity,
    load_or_create_identity,
    save_identity,
    short,
)
from btard.identity.work import Flaw, JoinTicket, Puzzle, TicketTerms, find_flaw

__all__ = [
    "DIGEST_SIZE",
    "PEER_ID_SIZE",
    "SIGNATURE_SIZE",
    "Context",
    "Flaw",
    "Identity",
    "JoinTicket",
    "PeerId",
    "Puzzle",
    "TicketTerms",
    "digest",
    "expand",
    "find_flaw",
    "is_signed_by",
    "load_identity",
    "load_or_create_identity",
    "save_identity",
    "short",
]
