"""
What a newcomer and a member say to each other while a state is handed over; every list and size is bounded.

Vectors are named by their Merkle root, so that whoever serves another one is found out by its first byte.
"""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from btard.rules.messages import Bytes32, Count, OptionalDigest

MAX_SNAPSHOTS = 8
MAX_TENSORS = 64
MAX_SEGMENT = 256
"""Seals in one page of a segment; a page ends at `btard.swarm.joining.lineage.MAX_PAGE` bytes too."""
MAX_CLAIMS = 256
"""Rounds of which one answer names the aggregates."""
MAX_LEAVES = 32_768
"""Leaf digests in one answer: 1 MiB."""
PIECE_BYTES = 16 << 20
"""Most bytes of one transfer, where a chunk is not larger: less is more questions, more is more that may be lost."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer that lists rounds, vectors or claims."""
MAX_QUESTION = 128
"""Bytes of a question; beyond them nothing is decoded."""


def count_piece_chunks(chunk_bytes: int) -> int:
    """Return the most chunks that one transfer has."""
    return max(1, PIECE_BYTES // chunk_bytes)


class Offer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """After how many rounds the snapshots are that a member has, with every aggregate since; 0 is x_0."""

    snapshots: Annotated[tuple[Count, ...], Meta(max_length=MAX_SNAPSHOTS)]


class RoundsQuestion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the seals, or the claims about aggregates, of the rounds from ``first`` to ``last``."""

    first: Count
    last: Count


class Segment(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Seals of consecutive rounds, the first ones of those asked for, without signatures."""

    seals: Annotated[tuple[Annotated[bytes, Meta(max_length=128 * 1024)], ...], Meta(max_length=MAX_SEGMENT)]


class OutlineQuestion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks what the state after a round consists of."""

    round: Count


class TensorEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One vector of a state: its name, length and Merkle root."""

    name: Annotated[str, Meta(max_length=64)]
    elements: Count
    root: Bytes32


class Outline(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a state consists of: the optimizer's step, x (None if it is not here), and the optimizer's buffers."""

    step: Count
    parameters: TensorEntry | None
    buffers: Annotated[tuple[TensorEntry, ...], Meta(max_length=MAX_TENSORS)]


class Claim(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The Merkle root of a round's aggregate, and whether x moved by it; no root where it is not here."""

    is_applied: bool
    root: OptionalDigest


class Claims(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One claim for every round asked for, from the first on."""

    claims: Annotated[tuple[Claim, ...], Meta(max_length=MAX_CLAIMS)]


class RangeQuestion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for leaves or chunks of the vector with a root, which belongs to a round; also the head of such chunks."""

    round: Count
    root: Bytes32
    first: Count
    stop: Count


class Status(IntEnum):
    """What came of a question for chunks."""

    SENT = 0
    GONE = 1
    """We do not have that vector, any more or at all."""
    BUSY = 2
    """Too many others are being sent to."""


class ChunksAnswer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Follows the chunks as soon as they were written to the link, or says why there are none."""

    status: Status
