"""
Ways to turn what a signature covers into bytes and back: ours, and the obvious others on the same content.

``ours`` is ``btard.wire``; ``msgspec`` and ``JSON`` check types and limits as ours does, the others build whatever
the bytes say. ``pickle`` runs what the bytes say, so nobody may use it between strangers; it is here for scale.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgpack
import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from btard.identity import JoinTicket
from btard.rules.messages import (
    Aggregate,
    Check,
    Commit,
    Confirm,
    Holding,
    Position,
    Quotes,
    Report,
    Sample,
    Unrelayed,
    Verdict,
    View,
)
from btard.rules.seal import Candidate, Seal
from btard.wire import decode, encode

Fields = tuple[Any, ...]


@dataclass(frozen=True)
class Encoding:
    """A name, a function from a struct to bytes, and one from bytes and the struct's type back to the struct."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, type], Any]
    checks: bool
    """Whether decoding refuses what is not of the type, or beyond its limits."""


@cache
def _native(wanted: type) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(wanted)


@cache
def _json(wanted: type) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(wanted)


def _take_commit(it: Commit) -> Fields:
    samples = [(item.candidate, astuple(item.report)) for item in it.quotes.samples]
    quotes = [astuple(item) for item in it.quotes.tickets], samples, it.quotes.charged
    return it.root, it.overflow, [astuple(item) for item in it.verdicts], it.state, it.seal, it.goodbye, quotes


def _make_commit(
    root: bytes, overflow: bool, verdicts: Any, state: bytes, seal: bytes, goodbye: bool, q: Any
) -> Commit:
    samples = tuple(Sample(candidate, Report(*report)) for candidate, report in q[1])
    quotes = Quotes(tuple(JoinTicket(*item) for item in q[0]), samples, q[2])
    return Commit(root, overflow, tuple(Verdict(*item) for item in verdicts), state, seal, goodbye, quotes)


def _take_aggregate(it: Aggregate) -> Fields:
    return it.root, it.norm, it.missing, it.nonce, [astuple(item) for item in it.unrelayed]


def _make_aggregate(root: bytes, norm: float, missing: Fields, nonce: bytes, unrelayed: Any) -> Aggregate:
    return Aggregate(root, norm, missing, nonce, tuple(Unrelayed(*item) for item in unrelayed))


def _take_check(it: Check) -> Fields:
    return [astuple(item) for item in it.reports], it.nonce, it.missing


def _make_check(reports: Any, nonce: bytes, missing: Sequence[int]) -> Check:
    return Check(tuple(Report(*item) for item in reports), nonce, tuple(missing))


def _take_view(it: View) -> Fields:
    holdings = [(astuple(item.position), item.digests) for item in it.holdings]
    return astuple(it.position), it.overdue, holdings, it.supplied, it.evidence, it.halt, it.marks, it.resumed


def _make_view(position: Any, overdue: bool, holdings: Any, *rest: Any) -> View:
    return View(Position(*position), overdue, tuple(Holding(Position(*at), held) for at, held in holdings), *rest)


TAKE: dict[type, tuple[int, Callable[[Any], Fields]]] = {
    Commit: (1, _take_commit),
    Aggregate: (2, _take_aggregate),
    Check: (4, _take_check),
    Confirm: (5, astuple),
    View: (11, _take_view),
}
MAKE: dict[int, Callable[..., Any]] = {1: _make_commit, 2: _make_aggregate, 4: _make_check, 5: Confirm, 11: _make_view}
"""By the tags of the payloads on the wire."""


def pack_by_hand(value: Any) -> bytes:
    """Return the bytes of a payload or a Seal by way of tuples that code for each kind of message makes."""
    if isinstance(value, Seal):
        fields = list(astuple(value))
        fields[11] = [astuple(item) for item in value.candidates]
    else:
        tag, take = TAKE[type(value)]
        fields = [tag, *take(value)]
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_by_hand(data: bytes, wanted: type) -> Any:
    """Return the payload or Seal in ``data``; nothing is checked."""
    fields = msgpack.unpackb(data, use_list=False)
    if wanted is Seal:
        return Seal(*fields[:11], tuple(Candidate(*item) for item in fields[11]), *fields[12:])
    tag, *content = fields
    return MAKE[tag](*content)


def _unpickle(data: bytes, wanted: type) -> Struct:
    value: Struct = pickle.loads(data)  # noqa: S301 - what we have just written
    return value


OURS = Encoding("ours", encode, decode, checks=True)
ENCODINGS = (
    OURS,
    Encoding(
        "msgspec", msgspec.msgpack.Encoder().encode, lambda data, wanted: _native(wanted).decode(data), checks=True
    ),
    Encoding("msgpack by hand", pack_by_hand, unpack_by_hand, checks=False),
    Encoding("JSON", msgspec.json.Encoder().encode, lambda data, wanted: _json(wanted).decode(data), checks=True),
    Encoding("pickle (unsafe)", lambda value: pickle.dumps(value, 5), _unpickle, checks=False),
)
