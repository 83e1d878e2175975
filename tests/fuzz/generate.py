"""Malformed bytes: mutations of what real peers say, and values made from the types that peers decode."""

import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import msgpack
import msgspec
from msgspec import inspect as types

from btard.errors import RemoteProtocolError
from btard.identity import Context, Identity, digest
from btard.net.requests import decode_request
from btard.net.session import REQUEST
from btard.rules import evidence, messages, seal
from btard.rules.messages import Stage
from btard.swarm import frames, genesis
from btard.swarm.frames import Kind
from btard.wire import decode, encode, envelope
from btard.wire.envelope import ENVELOPE_TAG, Envelope, Header

INTEGERS = (0, 1, 2, 7, 127, 128, 255, 256, 65_535, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**63, 2**64 - 1, -1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, 5e-324, 1e-310, 3.4e38, 1e100, 1e308, float("inf"), float("-inf"), float("nan"))
LENGTHS = (0, 1, 31, 32, 33, 63, 64, 65, 255, 256, 257, 4097, 70_000)
FEW = 6
BIG = 140_000  # bytes: more than an ordinary message may have
STRAY = 0.04
"""How often a generated value leaves its type: wrong sizes, kinds and ranges, at any depth."""

HEADS: Mapping[Kind, type] = {
    Kind.SLICE: frames.SliceHead,
    Kind.PART: frames.PartHead,
    Kind.PULL_STAGE: frames.StageRequest,
    Kind.PULL_SLICE: frames.SliceRequest,
    Kind.PULL_PART: frames.PartHead,
    Kind.GENESIS: genesis.SignedSeal,
    Kind.CERTIFICATE: evidence.CertificateProof,
    Kind.MESSAGE: Envelope,
}


def find_structs(modules: Iterable[ModuleType]) -> tuple[type, ...]:
    """Return every struct with fields or a tag that these modules use, in order of name."""
    found = {item for module in modules for _, item in inspect.getmembers(module, inspect.isclass)}
    structs = [(item, item.__struct_config__.tag) for item in found if issubclass(item, msgspec.Struct)]
    wanted = [item for item, tag in structs if item.__struct_fields__ or tag is not None]
    return tuple(sorted(wanted, key=lambda item: item.__name__))


STRUCTS = find_structs([messages, evidence, seal, frames, genesis, envelope])
PAYLOADS = tuple(item for item in STRUCTS if issubclass(item, messages.Payload) and item is not messages.Payload)


@cache
def describe(wanted: type) -> Any:
    """Return what msgspec knows of a type."""
    return types.type_info(wanted)


class Generator:
    """A source of malformed bytes; equal seeds and corpora give equal bytes."""

    def __init__(self, seed: int, corpus: Sequence[bytes] = ()) -> None:
        self.chance = random.Random(seed)
        self.stray = STRAY
        self._makers: Mapping[type, Callable[[Any, int], Any]] = {
            types.StructType: self._make_struct,
            types.UnionType: lambda kind, depth: self.value(self.chance.choice(kind.types), depth),
            types.IntType: self._make_integer,
            types.FloatType: lambda kind, depth: self.chance.choice((*FLOATS, self.chance.gauss(0, 1))),
            types.BoolType: lambda kind, depth: self.chance.random() < 0.5,
            types.BytesType: self._make_bytes,
            types.StrType: lambda kind, depth: "é" * self.chance.choice([0, 1, kind.max_length or 10]),
            types.VarTupleType: self._make_many,
            types.ListType: self._make_many,
            types.TupleType: lambda kind, depth: [self.value(item, depth + 1) for item in kind.item_types],
            types.EnumType: lambda kind, depth: self.chance.choice(list(kind.cls)).value,
        }
        self._own = list(corpus)
        self._heard: list[bytes] = []

    def record(self, data: bytes, most: int = 256) -> None:
        """Take something that a real peer said into the corpus; the oldest is forgotten."""
        self._heard.append(data)
        del self._heard[:-most]

    def recorded(self) -> bytes:
        """Return something of the corpus as it is, an empty struct if it holds nothing."""
        pools = [pool for pool in (self._own, self._heard) if pool]
        return self.chance.choice(self.chance.choice(pools)) if pools else b"\x90"

    def has_heard(self, data: bytes) -> bool:
        """Return whether this is, word for word, what a real peer said lately."""
        return data in self._heard

    def recorded_heard(self) -> bytes:
        """Return something that a real peer said, word for word."""
        return self.chance.choice(self._heard) if self._heard else self.recorded()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Make values that fit their types, however odd, in the body: all of them decode."""
        self.stray = 0.0
        try:
            yield
        finally:
            self.stray = STRAY

    # --- values from types

    def head(self, kind: int) -> bytes:
        """Return what might be the head of a message of ``kind``: of its type, of another, mutated or noise."""
        wanted = HEADS.get(Kind(kind)) if kind in set(Kind) else None
        data = self.struct(wanted or self.chance.choice(STRUCTS))
        roll = self.chance.random()
        if roll < 0.2:
            data = self.mutate(data)
        elif roll < 0.5:
            data = self.mutate(self.recorded())
        elif roll < 0.55:
            data = self.chance.randbytes(self.chance.choice(LENGTHS))
        return data

    def struct(self, wanted: type) -> bytes:
        """Return the MessagePack of a value of about that type."""
        return pack(self.value(describe(wanted)))

    def value(self, kind: Any, depth: int = 0) -> Any:
        """Return plain values for a type of ``msgspec.inspect``; now and then they do not fit."""
        if self.stray and (self.chance.random() < self.stray or depth > FEW):
            return self.chance.choice([None, b"", "x", 2**53, -1, [], [[[]]], {}, {"a": 1}, True, 1.5, "\ud7ff"])
        make = self._makers.get(type(kind))
        return make(kind, depth) if make else None

    def _make_struct(self, kind: Any, depth: int) -> list[Any]:
        items = [self.value(item.type, depth + 1) for item in kind.fields]
        return items if kind.tag is None else [kind.tag, *items]

    def _make_integer(self, kind: Any, _depth: int) -> int:
        least = kind.ge or 0
        most = kind.le if kind.le is not None else kind.lt - 1 if kind.lt is not None else 2**64 - 1
        odd = self.chance.choice(INTEGERS)
        if not self.stray and not least <= odd <= most:
            odd = most
        return self.chance.choice(
            [odd, self.chance.randint(least, most), self.chance.randrange(least, min(16, most + 1))]
        )

    def _make_bytes(self, kind: Any, _depth: int) -> bytes:
        least, most = kind.min_length or 0, kind.max_length if kind.max_length is not None else 4096
        sizes = [least, self.chance.randint(least, min(most, least + 64)), min(most, 64)]
        size = min(most, BIG) if self.chance.random() < 0.01 else self.chance.choice(sizes)
        if self.chance.random() < 0.9:
            return self.chance.randbytes(size)
        known = self.recorded()
        return known if self.stray else known[:most].ljust(least, b"\0")

    def _make_many(self, kind: Any, depth: int) -> list[Any]:
        most = kind.max_length if kind.max_length is not None else 1000
        if self.chance.random() < 0.02:
            item = self.value(kind.item_type, depth + 1)
            return [item] * min(self.chance.choice([most, most + bool(self.stray)]), BIG // max(1, len(pack(item))))
        return [self.value(kind.item_type, depth + 1) for _ in range(self.chance.randrange(min(FEW, most + 1)))]

    # --- signed envelopes

    def signed(self, identity: Identity, run_id: bytes, roster: bytes, stage: Stage) -> bytes:
        """Return an envelope with a good signature over about a payload of that stage."""
        fitting = [item for item in PAYLOADS if item.__struct_config__.tag == int(stage.phase)]
        wanted = fitting[0] if fitting and self.chance.random() >= self.stray else self.chance.choice(PAYLOADS)
        payload = self.value(describe(wanted))
        said = pack(payload)
        name = digest(Context.PAYLOAD, said) if self.chance.random() >= self.stray else self.chance.randbytes(32)
        header = pack([run_id, roster, *map(int, stage), identity.peer_id, self.chance.randbytes(32), name])
        return self.enclose(identity, header, said)

    def resigned(self, identity: Identity, data: bytes) -> bytes:
        """Return a real envelope whose content was changed and signed by somebody else, as far as it can be read."""
        try:
            outer = msgspec.msgpack.decode(data, type=Envelope)
            header = msgpack.unpackb(outer.header)
            header[len(Header.__struct_fields__) - 3] = identity.peer_id
            said = pack(self.edit(msgpack.unpackb(outer.payload)))
            header[-1] = digest(Context.PAYLOAD, said)
            return self.enclose(identity, pack(header), said)
        except (ValueError, IndexError, TypeError, msgspec.MsgspecError, msgpack.UnpackException):
            return self.enclose(identity, data, data)

    def enclose(self, identity: Identity, header: bytes, payload: bytes) -> bytes:
        """Return an envelope of a header with its signature and a payload."""
        return encode(Envelope(header, identity.sign(ENVELOPE_TAG + header), payload))

    # --- mutations

    def mutate(self, data: bytes) -> bytes:
        """Return ``data`` with one to three changes, of bytes or of the values in it."""
        for _ in range(self.chance.randint(1, 3)):
            change = self.chance.choice([self._flip, self._cut, self._repeat, self._splice, self._boundary, self._edit])
            data = change(data)
        return data[: 1 << 20]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\xc1"
        where = self.chance.randrange(len(data))
        return data[:where] + bytes([data[where] ^ 1 << self.chance.randrange(8)]) + data[where + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self.chance.randrange(len(data) + 1)]

    def _repeat(self, data: bytes) -> bytes:
        start = self.chance.randrange(len(data) + 1)
        return data[:start] + data[start : start + 64] * self.chance.choice([2, 3, 50]) + data[start:]

    def _splice(self, data: bytes) -> bytes:
        other = self.recorded()
        return data[: self.chance.randrange(len(data) + 1)] + other[self.chance.randrange(len(other) + 1) :]

    def _boundary(self, data: bytes) -> bytes:
        """Overwrite some bytes with the header of a huge or deep MessagePack value."""
        huge = [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"]
        odd = [b"\x91" * 600, b"\xc1", b"\xd7\x00" + bytes(8), b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6)]
        where = self.chance.randrange(len(data) + 1)
        piece = self.chance.choice(huge + odd)
        return data[:where] + piece + data[where + self.chance.choice([0, len(piece)]) :]

    def _edit(self, data: bytes) -> bytes:
        try:
            return pack(self.edit(msgpack.unpackb(data, strict_map_key=False)))
        except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
            return self._flip(data)

    def edit(self, plain: Any) -> Any:
        """Return plain values with one of them replaced, doubled or dropped."""
        if not isinstance(plain, list) or not plain:
            return self.chance.choice([None, b"", -1, 2**53, 2**64 - 1, [plain] * 3, float("nan"), "text", {}])
        where, roll = self.chance.randrange(len(plain)), self.chance.random()
        if roll < 0.1:
            return plain[:where] + plain[where + 1 :]
        if roll < 0.2:
            return plain[:where] + [plain[where]] * 2 + plain[where + 1 :]
        return [*plain[:where], self.edit(plain[where]), *plain[where + 1 :]]


def is_chatter(kind: int, head: bytes) -> bool:
    """Return whether a correct peer could say this: a question, a head or a proof that decodes.

    A signed message is never chatter here: what is signed is nonsense, but for what was recorded.
    """
    try:
        if kind == REQUEST:
            _, kind, head = decode_request(head)
        wanted = HEADS.get(Kind(kind)) if kind in set(Kind) else None
        return wanted not in (None, Envelope) and bool(decode(head, wanted))
    except RemoteProtocolError:
        return False


def pack(value: Any) -> bytes:
    """Return the MessagePack of plain values; what cannot be packed becomes nothing."""
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (ValueError, OverflowError, TypeError):
        return b""
    return packed
