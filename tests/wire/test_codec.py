"""The decoder: for any bytes a value of the wanted type or one typed error, within bounded memory."""

import tracemalloc
from contextlib import suppress

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.strategies import payloads, plain

from btard.errors import RemoteProtocolError
from btard.rules.messages import AnyPayload, Attest, Check, Phase, Reveal, Vote
from btard.swarm.frames import StageRequest
from btard.wire import MAX_MESSAGE, decode, encode
from btard.wire.envelope import Envelope, Header

KINDS = (Envelope, Header, AnyPayload)


def assert_contained(data: bytes) -> None:
    """Whatever ``data`` is, decode returns a value that encodes again, or raises RemoteProtocolError."""
    for kind in KINDS:
        try:
            value = decode(data, kind)
        except RemoteProtocolError:
            continue
        encode(value)


@given(st.binary(max_size=400))
def test_random_bytes_are_contained(data: bytes) -> None:
    """Random bytes give a message or RemoteProtocolError."""
    assert_contained(data)


@given(plain)
def test_any_valid_messagepack_is_contained(value: object) -> None:
    """Well-formed MessagePack of any shape gives a message or RemoteProtocolError."""
    assert_contained(msgpack.packb(value))


@given(payloads, st.data())
def test_payload_with_one_field_replaced_is_contained(payload: msgspec.Struct, data: st.DataObject) -> None:
    """A payload in which anything stands in the place of one field gives a message or RemoteProtocolError."""
    fields = msgpack.unpackb(encode(payload))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(plain)
    assert_contained(msgpack.packb(fields))


@given(payloads)
def test_every_payload_survives_the_round_trip(payload: msgspec.Struct) -> None:
    """decode(encode(x)) is x, for every kind of payload."""
    assert decode(encode(payload), AnyPayload) == payload


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # a byte that MessagePack never uses
        b"\xc0",  # nil
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32-1 items
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32-1 items
        b"\xc6\xff\xff\xff\xff",  # 2^32-1 bytes
        b"\xdb\xff\xff\xff\xff",  # a string of 2^32-1 bytes
        b"\xc9\xff\xff\xff\xff\x01",  # an extension of 2^32-1 bytes
        b"\xc7\x00\xff",  # an empty timestamp
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xd4\x05\x00",  # an extension
        b"\x81\x90\xc0",  # a map whose key is an array
        b"\xa2\xff\xfe",  # a string that is not UTF-8
        b"\x92" * 100_000,  # deep nesting
        b"\x81\x00" * 100_000,  # deep nesting of maps
        b"\x93\x00\x00\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00" + b"\x00" * 10,  # trailing bytes
    ],
    ids=lambda data: data[:6].hex() or "empty",
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    """Hand-written hostile inputs are refused with RemoteProtocolError and nothing else."""
    for kind in KINDS:
        with pytest.raises(RemoteProtocolError):
            decode(data, kind)


HOSTILE = {
    "headers-16": b"\xdc\xff\xff" * 1000,  # each announces an array of 65,535 items inside the one before
    "headers-32": b"\xdd\x00\x01\x00\x00" * 1000,
    "headers-map": b"\xdf\x00\x01\x00\x00\x00" * 1000,
    "empty-lists": b"\x9b" + (b"\xdc\xff\xff" + b"\x90" * 65_535) * 11,
    "empty-maps": b"\x9b" + (b"\xdc\xff\xff" + b"\x80" * 65_535) * 11,
    "deep-lists": b"\xdc\x05\x14" + (b"\x91" * 500 + b"\x90") * 1300,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("kind", [*KINDS, StageRequest])
def test_what_has_no_place_in_a_message_is_not_built(kind: type, data: bytes) -> None:
    """Three kilobytes of headers cost 60 ms and 60 MiB, and a message of empty lists 150 ms: of every stranger."""
    with suppress(RemoteProtocolError):
        decode(b"", kind)  # what is made once for each kind
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode(data, kind)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


def test_message_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    """The size limit is exact and checked before anything is decoded."""
    overhead = len(msgpack.packb([b"h", b"s" * 64, b"x" * 70_000])) - 70_000
    fits = msgpack.packb([b"h", b"s" * 64, b"x" * (MAX_MESSAGE - overhead)])
    assert len(fits) == MAX_MESSAGE
    assert len(decode(fits, Envelope).payload) == MAX_MESSAGE - overhead
    with pytest.raises(RemoteProtocolError, match="longer than"):
        decode(fits + b"\x00", Envelope)


@pytest.mark.parametrize("limit", [MAX_MESSAGE + 1000, 2000])
def test_limit_may_be_another_one(limit: int) -> None:
    """What comes from our own disk may be longer than a message, what is known to be short need not."""
    whole = encode([b"x" * (limit // 2 - 10), b"y" * (limit // 2 - 10)])
    assert len(decode(whole, list[bytes], limit=limit)) == 2
    with pytest.raises(RemoteProtocolError, match=f"than the {len(whole) - 1} allowed"):
        decode(whole, list[bytes], limit=len(whole) - 1)


@pytest.mark.parametrize(
    "fields",
    [
        [3, b"n" * 32],  # a field less
        [3, b"n" * 32, [], 1],  # a field more
        [3, b"n" * 31, []],  # a short nonce
        [3, b"n" * 33, []],  # a long nonce
        [3, "n" * 32, []],  # text for bytes
        [3, b"n" * 32, [-1]],  # a negative count
        [3, b"n" * 32, [2**53]],  # a count beyond 2^53
        [3, b"n" * 32, [1.0]],  # a float for a count
        [3, b"n" * 32, [True]],  # a truth value for a count
        [3, b"n" * 32, [0] * 257],  # more numbers than a roster has members
        [3, b"n" * 32, None],
        [1 + max(Phase), b"n" * 32, []],  # an unknown tag
        ["3", b"n" * 32, []],
        [None, b"n" * 32, []],
        {"nonce": b"n" * 32, "missing": []},  # a map
        [],
    ],
)
def test_reveal_that_is_not_exactly_one_is_refused(fields: object) -> None:
    """Wrong lengths, types, ranges, tags and field counts are each refused."""
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb(fields), AnyPayload)


def test_reveal_that_is_exactly_one_is_read() -> None:
    """The counterpart of the refusals: the same fields, all in range."""
    assert decode(msgpack.packb([3, b"n" * 32, [0, 2**53 - 1]]), AnyPayload) == Reveal(b"n" * 32, (0, 2**53 - 1))


@pytest.mark.parametrize(
    "fields",
    [
        [4, [[[0.0] * 65, 0.0]], b"n" * 32],  # 65 projections
        [4, [[[0.0], 0.0]] * 257, b"n" * 32],  # 257 reports
        [7, [True] * (256 * 256 + 1)],  # more attestations than there can be complaints
        [9, [[[], [], []]] * 257],  # 257 opinions
        [9, [[[b"p" * 32] * 257, [], []]]],  # 257 guilty
        [10, [0, 0, 1 + max(Phase), 0], [], []],  # a phase that does not exist
        [10, [0, 0, 1, 0], [], [b""] * 5],  # five pieces of evidence
        [11, [0, 0, 1, 0], False, [[[0, 0, 1, 0], []]] * 3, [], [], b""],  # three holdings
        [11, [0, 0, 1, 0], False, [], [b""] * 513, [], b""],  # more messages than two stages have
        [11, [0, 0, 1, 0], False, [], [b"x" * (512 * 1024 + 1)], [], b""],  # one enormous envelope
    ],
    ids=lambda fields: str(fields)[:24],
)
def test_lists_longer_than_a_roster_allows_are_refused(fields: object) -> None:
    """Every list has its bound in the type."""
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb(fields), AnyPayload)


def test_non_finite_floats_are_values_that_the_rules_judge() -> None:
    """NaN and infinities in reports decode: rules/checks.py refuses them, so that they are evidence, not noise."""
    check = decode(msgpack.packb([4, [[[float("nan"), float("-inf")], float("inf")]], b"n" * 32]), AnyPayload)
    assert isinstance(check, Check)
    assert check.reports[0].norm == float("inf")


@given(st.binary(max_size=60))
def test_memoryviews_decode_like_bytes(data: bytes) -> None:
    """A frame's memoryview is read in place, with the same outcome."""
    wanted = encode(Attest((True, False))) + data
    outcomes = []
    for source in (wanted, memoryview(wanted)):
        try:
            outcomes.append(decode(source, Attest | Vote))
        except RemoteProtocolError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]
