"""
Signed datagrams: every packet says who sent it, to whom, in which run and when.

A node's id follows from its public key and its identity work, so nobody takes another node's, and
every draw of an id that lies near a key costs that work. Layout, little endian::

    magic 4 | kind 1 | run tag 8 | destination 20 | message id 16 | sent ms 8 | public key 32 | identity nonce 8 |
    signature 64 | body

The signature covers a tag, the whole run id, everything before it and the body. Checks go from
cheap to costly: `read_header` costs slices and comparisons, the identity work a hash (2 us),
`is_authentic` a signature (57 us).
A recorded request is worthless after `MAX_CLOCK_SKEW_MS` and at any other node; a recorded
answer at once, for its message id is 16 random bytes of the one who asked.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from btard.dht.contact import KEY_SIZE
from btard.identity import PEER_ID_SIZE, SIGNATURE_SIZE, Context, Identity, PeerId, digest, is_signed_by

MAX_DATAGRAM_BYTES = 2560
"""Holds a full record and sixteen IPv6 entries; usual packets stay below one Ethernet frame."""
MAX_CLOCK_SKEW_MS = 300_000
MESSAGE_ID_SIZE = 16
ANYONE = bytes(KEY_SIZE)
"""Destination of a ping to an address whose node id is not known yet."""

_MAGIC = b"BTD\x02"
_TAG = b"btard dht datagram 2"
_RUN_TAG_SIZE = 8
_NONCE_SIZE = 8
_KIND = len(_MAGIC)
_RUN = _KIND + 1
_DESTINATION = _RUN + _RUN_TAG_SIZE
_MESSAGE = _DESTINATION + KEY_SIZE
_SENT = _MESSAGE + MESSAGE_ID_SIZE
_SENDER = _SENT + 8
_NONCE = _SENDER + PEER_ID_SIZE
_SIGNATURE = _NONCE + _NONCE_SIZE
_BODY = _SIGNATURE + SIGNATURE_SIZE


class Kind(IntEnum):
    """Direction of a datagram."""

    REQUEST = 0
    ANSWER = 1


@dataclass(frozen=True)
class Header:
    """The claims of a datagram; true once `is_authentic`."""

    kind: Kind
    destination: bytes
    message_id: bytes
    sent_ms: int
    sender: PeerId
    identity_nonce: int


@dataclass(frozen=True)
class IdentityWork:
    """Our ``nonce``, and how many ``bits`` the run asks of it, and of every node that is heard."""

    nonce: int
    bits: int


NO_WORK = IdentityWork(0, 0)
"""Of a run that asks for none."""


def node_id_of(run_id: bytes, peer: PeerId, identity_nonce: int) -> bytes:
    """Return the 20-byte Kademlia id of ``peer``'s node in this run.

    The nonce is part of it. Otherwise one would draw keys until an id lies well, and work for that key alone.
    """
    return digest(Context.NODE_ID, run_id, peer, identity_nonce.to_bytes(_NONCE_SIZE, "little"))[:KEY_SIZE]


@lru_cache
def run_tag(run_id: bytes) -> bytes:
    """Return the 8 public bytes by which packets of other runs are dropped before any signature is checked."""
    return digest(Context.NODE_ID, run_id)[:_RUN_TAG_SIZE]


def sign_datagram(identity: Identity, run_id: bytes, header: Header, body: bytes) -> bytes:
    """Return the packet that carries ``body``; ``header.sender`` must be ``identity``."""
    head = b"".join(
        (
            _MAGIC,
            bytes((header.kind,)),
            run_tag(run_id),
            header.destination,
            header.message_id,
            header.sent_ms.to_bytes(8, "little"),
            header.sender,
            header.identity_nonce.to_bytes(_NONCE_SIZE, "little"),
        )
    )
    return head + identity.sign(_signed(run_id, head, body)) + body


def read_header(run_id: bytes, data: bytes) -> Header | None:
    """Return the claims of a packet of this run, unverified, or ``None``; costs no signature."""
    if not _BODY <= len(data) <= MAX_DATAGRAM_BYTES or data[:_KIND] != _MAGIC or data[_KIND] > Kind.ANSWER:
        return None
    if data[_RUN:_DESTINATION] != run_tag(run_id):
        return None
    return Header(
        kind=Kind(data[_KIND]),
        destination=data[_DESTINATION:_MESSAGE],
        message_id=data[_MESSAGE:_SENT],
        sent_ms=int.from_bytes(data[_SENT:_SENDER], "little"),
        sender=PeerId(data[_SENDER:_NONCE]),
        identity_nonce=int.from_bytes(data[_NONCE:_SIGNATURE], "little"),
    )


def is_authentic(run_id: bytes, header: Header, data: bytes) -> bool:
    """Return whether the sender named in ``header`` signed ``data`` for this run."""
    signature = data[_SIGNATURE:_BODY]
    return is_signed_by(header.sender, _signed(run_id, data[:_SIGNATURE], data[_BODY:]), signature)


def body_of(data: bytes) -> bytes:
    """Return the body of a packet whose header was read."""
    return data[_BODY:]


def _signed(run_id: bytes, head: bytes, body: bytes) -> bytes:
    return b"".join((_TAG, len(run_id).to_bytes(2, "little"), run_id, head, body))
