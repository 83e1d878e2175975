"""
Frames: what a link writes after its handshake.

A frame is a 4-byte header (type, then the length of what follows, 24 bits big-endian) and an
AES-256-GCM ciphertext with its tag. The header is authenticated as associated data. Nonces are a
counter per direction, as in Noise, so a frame that is replayed, dropped or swapped does not open.

Frame types

CONTROL   kind, then the (rest of the) head of a control message
PART      the first bytes of a control message too long for one frame
BULK      kind, size of the payload, head: a bulk message begins
DATA      the next bytes of its payload, as many as fit
ABORT     the bulk message under way is to be forgotten
PING      nothing; shows that the sender lives
"""

import struct
from enum import IntEnum
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from btard.errors import RemoteProtocolError
from btard.net.link import MAX_BULK, MAX_HEADER, WINDOW

HEADER_SIZE = 4
TAG_SIZE = 16
MAX_PLAIN = WINDOW  # plaintext bytes of a frame: a control message waits for at most one such frame
MAX_FRAME = HEADER_SIZE + MAX_PLAIN + TAG_SIZE
# A key is replaced after 2^16 frames, 16 GiB: far below the 2^38 bytes up to which AES-GCM keeps its margin.
FRAMES_PER_KEY = 1 << 16
REKEY_NONCE = b"\0" * 4 + b"\xff" * 8

_BULK_START = struct.Struct(">BQ")


class FrameType(IntEnum):
    """What a frame holds."""

    CONTROL = 0
    PART = 1
    BULK = 2
    DATA = 3
    ABORT = 4
    PING = 5

    @property
    def is_data(self) -> bool:
        """Whether the bytes of such a frame count as data (see ``Traffic``)."""
        return FrameType.BULK <= self <= FrameType.ABORT


_TYPES = tuple(FrameType)


class FrameKey:
    """The key of one direction and the number of the next frame; both ends step in unison."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def seal(self, frame_type: FrameType, plain: bytes | memoryview, out: memoryview) -> memoryview:
        """Write the next frame into ``out`` and return the part that it fills; at most MAX_PLAIN bytes of ``plain``."""
        size = len(plain) + TAG_SIZE
        header = encode_header(frame_type, size)
        out[:HEADER_SIZE] = header
        self._cipher.encrypt_into(self._next_nonce(), plain, header, out[HEADER_SIZE : HEADER_SIZE + size])
        return out[: HEADER_SIZE + size]

    def open(self, header: bytes, body: memoryview) -> bytes:
        """Return the plaintext of the next frame.

        Raises:
            RemoteProtocolError: it is not the frame that the peer wrote.
        """
        try:
            return self._cipher.decrypt(self._next_nonce(), body, header)
        except InvalidTag:
            raise RemoteProtocolError("a frame fails authentication") from None

    def open_into(self, header: bytes, body: memoryview, out: memoryview) -> None:
        """Decrypt the next frame into ``out``, as long as its plaintext.

        Raises:
            RemoteProtocolError: it is not the frame that the peer wrote; ``out`` then holds nothing of use.
        """
        try:
            self._cipher.decrypt_into(self._next_nonce(), body, header, out)
        except InvalidTag:
            raise RemoteProtocolError("a frame fails authentication") from None

    def _next_nonce(self) -> bytes:
        """Return the nonce of this frame; every FRAMES_PER_KEY frames the key is replaced, as Noise's REKEY does."""
        if self._counter and self._counter % FRAMES_PER_KEY == 0:
            self._cipher = AESGCM(self._cipher.encrypt(REKEY_NONCE, bytes(32), None)[:32])
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        return nonce


def encode_header(frame_type: FrameType, size: int) -> bytes:
    """Return the header of a frame with ``size`` bytes of ciphertext and tag."""
    return (frame_type << 24 | size).to_bytes(HEADER_SIZE, "big")


def decode_header(header: bytes) -> tuple[FrameType, int]:
    """Return the type of a frame and the size of its ciphertext, tag included: TAG_SIZE to MAX_PLAIN + TAG_SIZE.

    Raises:
        RemoteProtocolError: there is no such type, or the size is out of bounds.
    """
    number, size = header[0], int.from_bytes(header[1:], "big")
    if number > FrameType.PING or not TAG_SIZE <= size <= MAX_PLAIN + TAG_SIZE:
        raise RemoteProtocolError(f"a frame of type {number} and {size} bytes is not allowed")
    return _TYPES[number], size


def encode_bulk_start(kind: int, head: bytes, size: int) -> bytes:
    """Return the plaintext of a BULK frame."""
    return _BULK_START.pack(kind, size) + head


def decode_bulk_start(plain: bytes) -> tuple[int, bytes, int]:
    """Return (kind, head, size of the payload) of a BULK frame.

    Raises:
        RemoteProtocolError: it is too short or too long, or announces too large a payload.
    """
    head = plain[_BULK_START.size :]
    if len(plain) < _BULK_START.size or len(head) > MAX_HEADER:
        raise RemoteProtocolError(f"a bulk header of {len(plain)} bytes is not allowed")
    kind, size = _BULK_START.unpack_from(plain)
    if size > MAX_BULK:
        raise RemoteProtocolError(f"a payload of {size} bytes is not allowed")
    return kind, head, size


@lru_cache(maxsize=4096)
def compute_control_size(head_size: int) -> int:
    """Return the bytes on the wire of a control message."""
    plain = head_size + 1
    frames = -(-plain // MAX_PLAIN)
    return plain + frames * (HEADER_SIZE + TAG_SIZE)


def compute_bulk_size(head_size: int, payload_size: int) -> int:
    """Return the bytes on the wire of a bulk message."""
    return _BULK_START.size + head_size + HEADER_SIZE + TAG_SIZE + compute_data_size(payload_size)


def compute_data_size(size: int) -> int:
    """Return the bytes on the wire of the data frames of so many bytes of a payload, from a frame's beginning."""
    return size - (-size // MAX_PLAIN) * (HEADER_SIZE + TAG_SIZE)
