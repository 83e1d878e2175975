"""
What nodes ask and answer: MessagePack bodies of datagrams, as typed structs.

The stock package dispatches on any method name that a datagram carries and hands its arguments
on unchecked. Here a body is one of eight structs, or nothing: sizes and types are fixed below.
"""

from typing import Annotated

import msgspec

from btard.dht.contact import KEY_SIZE, MAX_RECORD_BYTES

BUCKET_SIZE = 16
"""Kademlia's k: nodes per bucket, nodes per answer, and copies of a record."""

_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_SIZE, max_length=KEY_SIZE)]
_Record = Annotated[bytes, msgspec.Meta(max_length=MAX_RECORD_BYTES)]
# A literal IP address: 45 characters hold any IPv6 address.
_Entry = tuple[_Key, Annotated[str, msgspec.Meta(max_length=45)], Annotated[int, msgspec.Meta(ge=1, le=65535)]]
Entries = Annotated[tuple[_Entry, ...], msgspec.Meta(max_length=BUCKET_SIZE)]
"""Nodes as (node id, literal IP address, UDP port)."""


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Ping(_Body, frozen=True, tag="ping"):
    """Are you there?"""


class Pong(_Body, frozen=True, tag="pong"):
    """I am."""


class FindNode(_Body, frozen=True, tag="find_node"):
    """Which nodes do you know closest to ``key``?"""

    key: _Key


class FoundNodes(_Body, frozen=True, tag="nodes"):
    """These, closest first."""

    nodes: Entries


class FindRecord(_Body, frozen=True, tag="find_record"):
    """Which record do you hold for ``key``, and which nodes do you know closest to it?"""

    key: _Key


class FoundRecord(_Body, frozen=True, tag="record"):
    """This one if any, and these nodes; the stock package answers one or the other, which hides newer records."""

    record: _Record | None
    nodes: Entries


class Store(_Body, frozen=True, tag="store"):
    """Keep this record, please."""

    key: _Key
    record: _Record


class Stored(_Body, frozen=True, tag="stored"):
    """Whether we now hold that record or a newer one."""

    accepted: bool


Request = Ping | FindNode | FindRecord | Store
Answer = Pong | FoundNodes | FoundRecord | Stored

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_body(body: Request | Answer) -> bytes:
    """Return the MessagePack form of ``body``."""
    return msgspec.msgpack.encode(body)


def decode_request(data: bytes) -> Request | None:
    """Return the request in ``data``, or ``None`` if there is none."""
    try:
        return _requests.decode(data)
    except ValueError:
        return None


def decode_answer(data: bytes) -> Answer | None:
    """Return the answer in ``data``, or ``None`` if there is none."""
    try:
        return _answers.decode(data)
    except ValueError:
        return None
