"""Frames: what is sealed opens once, in order, unchanged; everything else is rejected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.errors import RemoteProtocolError
from btard.net import MAX_BULK, MAX_HEADER, frames
from btard.net.frames import (
    HEADER_SIZE,
    MAX_FRAME,
    MAX_PLAIN,
    TAG_SIZE,
    FrameKey,
    FrameType,
    decode_bulk_start,
    decode_header,
    encode_bulk_start,
)

KEY = bytes(range(32))


def seal(key: FrameKey, plain: bytes, frame_type: FrameType = FrameType.CONTROL) -> tuple[bytes, memoryview]:
    """Return (header, body) of the next frame."""
    frame = key.seal(frame_type, plain, memoryview(bytearray(MAX_FRAME)))
    return bytes(frame[:HEADER_SIZE]), frame[HEADER_SIZE:]


@pytest.mark.parametrize("size", [0, 1, 1000, MAX_PLAIN])
def test_a_frame_opens_to_what_was_sealed(size):
    """Opening gives the plaintext back, as bytes or in place; the header tells type and size."""
    plain = bytes(range(256)) * (size // 256 + 1)
    plain = plain[:size]
    sender, receiver = FrameKey(KEY), FrameKey(KEY)
    header, body = seal(sender, plain)
    assert decode_header(header) == (FrameType.CONTROL, size + TAG_SIZE)
    assert receiver.open(header, body) == plain
    out = bytearray(size)
    receiver.open_into(*seal(sender, plain, FrameType.DATA), memoryview(out))
    assert out == plain


@given(st.integers(0, HEADER_SIZE + 10 + TAG_SIZE - 1), st.integers(1, 255))
def test_every_changed_bit_is_noticed(position, change):
    """A frame with one byte changed, header included, does not open."""
    header, body = seal(FrameKey(KEY), b"0123456789")
    frame = bytearray(header) + body
    frame[position] ^= change
    with pytest.raises(RemoteProtocolError):
        FrameKey(KEY).open(bytes(frame[:HEADER_SIZE]), memoryview(frame)[HEADER_SIZE:])
    with pytest.raises(RemoteProtocolError):
        FrameKey(KEY).open_into(bytes(frame[:HEADER_SIZE]), memoryview(frame)[HEADER_SIZE:], memoryview(bytearray(10)))


def test_a_replayed_or_skipped_frame_does_not_open():
    """Frames open only in the order in which they were sealed, each once."""
    sender = FrameKey(KEY)
    first, second = seal(sender, b"first"), seal(sender, b"second")
    receiver = FrameKey(KEY)
    receiver.open(*first)
    with pytest.raises(RemoteProtocolError):
        receiver.open(*first)
    with pytest.raises(RemoteProtocolError):
        FrameKey(KEY).open(*second)


def test_keys_are_replaced(monkeypatch):
    """Both ends change to a new key together, and the old one opens nothing more."""
    monkeypatch.setattr(frames, "FRAMES_PER_KEY", 2)
    sender, receiver = FrameKey(KEY), FrameKey(KEY)
    for number in range(7):
        assert receiver.open(*seal(sender, b"%d" % number)) == b"%d" % number
    stale = FrameKey(KEY)
    stale._counter = 7
    with pytest.raises(RemoteProtocolError):
        stale.open(*seal(sender, b"7"))


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_any_header_is_within_bounds_or_rejected(header):
    """Four bytes are a known type and an allowed size, or RemoteProtocolError."""
    try:
        frame_type, size = decode_header(header)
    except RemoteProtocolError:
        return
    assert frame_type in FrameType
    assert TAG_SIZE <= size <= MAX_PLAIN + TAG_SIZE


@given(st.binary(max_size=40))
def test_any_bulk_start_is_within_bounds_or_rejected(plain):
    """Any bytes are a bulk header within the limits, which encodes to the same bytes, or RemoteProtocolError."""
    try:
        kind, head, size = decode_bulk_start(plain)
    except RemoteProtocolError:
        return
    assert size <= MAX_BULK
    assert encode_bulk_start(kind, head, size) == plain


@pytest.mark.parametrize(
    "plain", [b"", bytes(8), encode_bulk_start(1, b"", MAX_BULK + 1), encode_bulk_start(1, bytes(MAX_HEADER + 1), 1)]
)
def test_a_bulk_start_beyond_the_limits_is_rejected(plain):
    """Too short, too long, or too much announced: RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        decode_bulk_start(plain)
