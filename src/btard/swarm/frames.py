"""What travels between peers beside the slots: kinds of frames and the heads of bulk data."""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from btard.rules.messages import MAX_ROSTER, Bytes32, Count, OptionalDigest, Position, Report
from btard.rules.seal import SealSignature


class Kind(IntEnum):
    """One number per kind of control message, bulk transfer or request."""

    MESSAGE = 1
    SLICE = 2
    PART = 3
    PULL_STAGE = 4
    PULL_SLICE = 5
    PULL_PART = 6
    CONFIG = 7
    HELLO = 8
    CERTIFICATE = 10
    PLAIN_SLICE = 11
    PLAIN_PART = 12
    CHAIN = 20
    RESUME = 21
    SEAL = 22
    PULL_VOTED = 23
    PULL_SETTLED = 24
    GENESIS = 13
    STANDING = 14
    CHECK_UP = 40
    JOIN_TICKET = 41
    LINEAGE = 50
    OFFER = 51
    SEGMENT = 52
    OUTLINE = 53
    LEAVES = 54
    CLAIMS = 55
    CHUNKS = 56
    SAMPLE = 61
    HANDOVER = 62
    UPDATE = 63
    PLACE = 64
    NAMES = 65


class SampleHead(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a candidate says of its gradient in a round, as that began in an attempt: begun again it is another."""

    round: Count
    attempt: Count
    report: Report


class Receipt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to a ticket: the number of a ``ticket_desk.Reply``."""

    reply: Annotated[int, Meta(ge=0, le=9)]


class UpdateRequest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the aggregate of a finished round; the answer's head is an UpdateHead, or empty."""

    round: Count


class UpdateHead(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whether x moved by the aggregate that is the payload."""

    is_applied: bool


class SignedTuple(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A seal as its members signed it."""

    seal: Annotated[bytes, Meta(max_length=128 * 1024)]
    signatures: Annotated[tuple[SealSignature, ...], Meta(max_length=MAX_ROSTER)]


class SliceHead(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Consecutive chunks of a committed gradient, with the proof against its root."""

    round: Count
    root: Bytes32
    first: Count
    stop: Count
    proof: Annotated[tuple[Bytes32, ...], Meta(max_length=128)]


class StageRequest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the messages of a stage by members whose ids come after ``after``.

    ``known`` is the digest of those that the asker holds: whoever holds the same has nothing to say.
    """

    position: Position
    after: OptionalDigest
    known: OptionalDigest = b""


class SettledRequest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the newest settlement of an attempt: the answer's head is a certificate or conclusion, or empty.

    It is empty also where nothing was settled since recovery ``serial`` began.
    """

    attempt: Count
    serial: Count = 0


class StageAnswer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Messages of a stage in order of their senders; ``is_last`` unless there are more senders after them."""

    envelopes: Annotated[tuple[bytes, ...], Meta(max_length=2 * MAX_ROSTER)]
    is_last: bool


class PartHead(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The aggregate of one part in one attempt."""

    round: Count
    attempt: Count
    part: Count


class SliceRequest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for chunks of a committed gradient that was published."""

    round: Count
    root: Bytes32
    first: Count
    stop: Count
