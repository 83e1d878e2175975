"""
Contact records: where a peer can be reached, said and signed by that peer.

A record is the only value the DHT keeps. It is a hint: whoever dials the addresses authenticates
the peer on the TCP link. So a forged record would cost a failed dial, and none can be forged:

1. The key under which a record is kept names its owner, and only the owner can sign it.
2. It expires within `MAX_LIFETIME_MS`; of several valid ones the highest sequence wins.
3. It takes at most `MAX_RECORD_BYTES`, checked before anything else.

Layout: 64-byte Ed25519 signature, then the canonical MessagePack body that it covers. The bytes
as received are verified; nothing is encoded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from btard.errors import ConfigError
from btard.identity import PEER_ID_SIZE, SIGNATURE_SIZE, Context, Identity, PeerId, digest, is_signed_by

MAX_RECORD_BYTES = 1024
MAX_ADDRESSES = 8
MAX_LIFETIME_MS = 3_600_000
"""One hour: the longest a vanished peer's addresses stay believable."""
KEY_SIZE = 20
"""Bytes of a Kademlia key or node id; 160 bits is what the routing table of `kademlia` holds."""

_TAG = b"btard dht contact 1"
_UINT63 = msgspec.Meta(ge=0, le=2**63 - 1)
# Literal IPv4 and IPv6 addresses and host names; anything else never reaches a resolver.
_Host = Annotated[str, msgspec.Meta(max_length=253, pattern=r"\A[0-9A-Za-z.:_-]+\Z")]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    peer: Annotated[bytes, msgspec.Meta(min_length=PEER_ID_SIZE, max_length=PEER_ID_SIZE)]
    addresses: Annotated[tuple[tuple[_Host, _Port], ...], msgspec.Meta(min_length=1, max_length=MAX_ADDRESSES)]
    sequence: Annotated[int, _UINT63]
    expires_ms: Annotated[int, _UINT63]


_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True)
class Contact:
    """A peer's TCP addresses as (host, port), most preferred first, valid until ``expires_ms`` (Unix time)."""

    peer: PeerId
    addresses: tuple[tuple[str, int], ...]
    sequence: int
    expires_ms: int


def contact_key(run_id: bytes, peer: PeerId) -> bytes:
    """Return the 20-byte DHT key of ``peer``'s record in this run."""
    return digest(Context.CONTACT, run_id, peer)[:KEY_SIZE]


def sign_contact(
    identity: Identity, run_id: bytes, addresses: Sequence[tuple[str, int]], sequence: int, expires_ms: int
) -> bytes:
    """Return our record, at most `MAX_RECORD_BYTES`, which every peer of the run accepts until ``expires_ms``.

    Raises:
        ConfigError: no address, more than `MAX_ADDRESSES`, one that is not (host, port), or too long together.
    """
    pairs = tuple((host, port) for host, port in addresses)
    body = msgspec.msgpack.encode(_Body(1, identity.peer_id, pairs, sequence, expires_ms))
    record = identity.sign(_signed(run_id, body)) + body
    if _decode(record) is None:
        raise ConfigError(f"cannot announce {list(pairs)}: give 1 to {MAX_ADDRESSES} short (host, port 1-65535) pairs")
    return record


def open_contact(run_id: bytes, key: bytes, record: object, now_ms: int) -> Contact | None:
    """Return what ``record`` says, or ``None`` unless it is its owner's, for ``key`` and this run, and in force."""
    contact = _decode(record)
    if contact is None or not isinstance(record, bytes):
        return None
    if not now_ms < contact.expires_ms <= now_ms + MAX_LIFETIME_MS or contact_key(run_id, contact.peer) != key:
        return None
    signature, body = record[:SIGNATURE_SIZE], record[SIGNATURE_SIZE:]
    return contact if is_signed_by(contact.peer, _signed(run_id, body), signature) else None


def _decode(record: object) -> Contact | None:
    """Return the claimed content of ``record``, signature and expiry unchecked, or ``None``."""
    if not isinstance(record, bytes) or not SIGNATURE_SIZE < len(record) <= MAX_RECORD_BYTES:
        return None
    try:
        body = _decoder.decode(record[SIGNATURE_SIZE:])
    except ValueError:
        return None
    return Contact(PeerId(body.peer), body.addresses, body.sequence, body.expires_ms)


def _signed(run_id: bytes, body: bytes) -> bytes:
    """Return the bytes a record's signature covers; ``run_id`` has a fixed size, so no two runs share them."""
    return b"".join((_TAG, len(run_id).to_bytes(2, "little"), run_id, body))
