"""Keys and digests: who signed it, and what exactly was signed."""

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

__all__ = [
    "DIGEST_SIZE",
    "PEER_ID_SIZE",
    "SIGNATURE_SIZE",
    "Context",
    "Identity",
    "PeerId",
    "digest",
    "expand",
    "is_signed_by",
    "load_identity",
    "load_or_create_identity",
    "save_identity",
    "short",
]
