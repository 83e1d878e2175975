"""
Everything a peer can say, in one file.

A *stage* is (round, attempt, phase, serial); a *slot* is a stage and a sender: at most one signed
message may ever exist for it. ``attempt`` counts the redos of the whole run, so that no slot is
ever used for two contents. Recovery messages belong to an attempt, not to a round: their round is
0 and their ``serial`` counts the recoveries of that attempt. Disputes can arise at two points of an attempt,
complaints at three, which ``serial`` counts from 0. docs/reference/messages.md has the table of fields, sizes and
reasons.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Annotated, NamedTuple, get_args

from msgspec import Meta, Struct

from btard.identity import Context, JoinTicket, PeerId, digest, short

MAX_ROSTER = 256
MAX_PROJECTIONS = 64
MAX_EVIDENCE = 4
MAX_HEADER = 224
"""Bytes that a signature covers: five digests and four numbers."""
MAX_SHOWN = 2 * (MAX_HEADER + 72) + 8
"""Bytes of a proof of equivocation: two headers with their signatures, however long the messages are."""
MAX_SUPPLIED = 2 * MAX_ROSTER
MAX_MARKED = 1024
"""Pairs that a VIEW calls marked, the lowest ones: f members with f partners each are no more at 64 members."""
MAX_UNRELAYED = 2 * MAX_ROSTER
MAX_TICKETS = 2
"""Join tickets in one COMMIT: those of the lowest rank that its sender has verified."""
MAX_CANDIDATES = MAX_ROSTER // 4
NOTHING = b""
"""The ``previous`` of a message that follows no transcript."""

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
OptionalDigest = Annotated[bytes, Meta(max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Peers = Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_ROSTER)]
Numbers = Annotated[tuple[Count, ...], Meta(max_length=MAX_ROSTER)]
PairNumbers = Annotated[tuple[Count, ...], Meta(max_length=MAX_MARKED)]
Envelope = Annotated[bytes, Meta(max_length=512 * 1024)]


class Phase(IntEnum):
    """One exchange of signed messages; the order is that of a round, recovery last."""

    HELLO = 0
    COMMIT = 1
    AGGREGATE = 2
    REVEAL = 3
    CHECK = 4
    CONFIRM = 5
    PUBLISH = 6
    ATTEST = 7
    DISPUTE_PUBLISH = 8
    VOTE = 9
    HALT = 10
    VIEW = 11
    BALLOT = 12
    AGREE = 13
    RESUME = 14
    CONCLUDE = 15


class Stage(NamedTuple):
    """One phase of one attempt; ordered as the run passes through them, recovery aside."""

    round: int
    attempt: int
    phase: Phase
    serial: int = 0

    def __str__(self) -> str:
        return f"{self.phase.name} of round {self.round} (attempt {self.attempt})"


class Slot(NamedTuple):
    """A stage and its sender: at most one signed message may ever exist for it."""

    stage: Stage
    sender: PeerId


class Payload(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content of one message; the tag on the wire is the phase."""


class Hello(Payload, frozen=True, tag=0):
    """A peer is warm and asks for a place in the genesis roster."""

    gradient_ms: Count
    state: Bytes32


class Verdict(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A validator's finding about its target of the previous round (Verification 3)."""

    target: Bytes32
    guilty: bool


class Report(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """k projections and a norm, float64: of the clipped difference on one part, or of a candidate's whole gradient."""

    projections: Annotated[tuple[float, ...], Meta(max_length=MAX_PROJECTIONS)]
    norm: float


class Sample(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a candidate says of its gradient in the round before, as it told the sender."""

    candidate: Bytes32
    report: Report


class Quotes(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a member passes on of strangers and candidates, who say nothing in transcripts themselves (attacks B8).

    ``charged`` are candidates whose gradient the sender was drawn to redo and found false.
    """

    tickets: Annotated[tuple[JoinTicket, ...], Meta(max_length=MAX_TICKETS)] = ()
    samples: Annotated[tuple[Sample, ...], Meta(max_length=MAX_CANDIDATES)] = ()
    charged: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_CANDIDATES)] = ()


NO_QUOTES = Quotes()


class Commit(Payload, frozen=True, tag=1):
    """What a member stands for this round, before anyone has seen a gradient.

    ``root`` is the Merkle root over the chunks of g_i; validators of the previous round compute
    no gradient and send ``verdicts`` instead. ``seal`` signs the tuple of the previous round.
    """

    root: OptionalDigest
    overflow: bool
    verdicts: Annotated[tuple[Verdict, ...], Meta(max_length=MAX_ROSTER)]
    state: Bytes32
    seal: Signature
    goodbye: bool
    quotes: Quotes = NO_QUOTES


class Unrelayed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A slice that the sender was to pass on to ``recipient`` and did not get from ``owner``."""

    recipient: Bytes32
    owner: Bytes32


class Aggregate(Payload, frozen=True, tag=2):
    """Merkle root and norm of the sender's aggregate, or whose slices it complains about; H(nonce r).

    ``unrelayed`` are the slices that it lacks as a relay between marked pairs.
    """

    root: OptionalDigest
    norm: float
    missing: Peers
    nonce: Bytes32
    unrelayed: Annotated[tuple[Unrelayed, ...], Meta(max_length=MAX_UNRELAYED)]


class Reveal(Payload, frozen=True, tag=3):
    """The nonce of the draw r of directions, and the parts that never arrived here."""

    nonce: Bytes32
    missing: Numbers


class Check(Payload, frozen=True, tag=4):
    """A contributor's report on every part (Verifications 1 and 2), or the parts that nobody gave it; H(nonce q)."""

    reports: Annotated[tuple[Report, ...], Meta(max_length=MAX_ROSTER)]
    nonce: Bytes32
    missing: Numbers = ()


class Finding(StrEnum):
    """What somebody who redid a candidate's gradient finds its sample to be; ``UNKNOWN`` where it could not."""

    TRUE = "true"
    DIFFERENT = "different"
    FALSE = "false"
    UNKNOWN = "unknown"


class Answer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sender's finding about the sample that ``checker`` charges ``candidate`` with."""

    candidate: Bytes32
    checker: Bytes32
    finding: Finding


class Confirm(Payload, frozen=True, tag=5):
    """The nonce of the draw q; whose report on the sender's part is false; answers to all charges, in order."""

    nonce: Bytes32
    named: Peers
    answers: Annotated[tuple[Answer, ...], Meta(max_length=MAX_CANDIDATES)] = ()


class Publish(Payload, frozen=True, tag=6):
    """The sender has sent to everyone whatever a complaint asked it for; ``marks`` names the pairs in force."""

    marks: Bytes32


class Attest(Payload, frozen=True, tag=7):
    """For every open complaint, in its order, whether the sender holds the data and serves it."""

    held: Annotated[tuple[bool, ...], Meta(max_length=MAX_ROSTER * MAX_ROSTER)]


class DisputePublish(Payload, frozen=True, tag=8):
    """All that disputes ask of the sender is sent to everyone; for each, in order, the places that it lacks itself."""

    lacking: Annotated[tuple[Numbers, ...], Meta(max_length=MAX_ROSTER)] = ()


class Opinion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one member found about one dispute; ``parts`` are those whose reports were false."""

    guilty: Peers
    silent: Peers
    parts: Numbers


class Vote(Payload, frozen=True, tag=9):
    """One opinion for every open dispute, in the order of the disputes."""

    opinions: Annotated[tuple[Opinion, ...], Meta(max_length=MAX_ROSTER)]


class Position(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A stage as a value on the wire."""

    round: Count
    attempt: Count
    phase: Annotated[int, Meta(ge=0, le=15)]
    serial: Count

    @property
    def stage(self) -> Stage:
        """The stage it names."""
        return Stage(self.round, self.attempt, Phase(self.phase), self.serial)


Shown = Annotated[bytes, Meta(max_length=MAX_SHOWN)]


class Halt(Payload, frozen=True, tag=10):
    """The round cannot go on: these senders' messages of a stage are missing, or here is evidence."""

    position: Position
    missing: Peers
    evidence: Annotated[tuple[Shown, ...], Meta(max_length=MAX_EVIDENCE)]


class Holding(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The digests of the messages held of one stage, in roster order; empty where none is held."""

    position: Position
    digests: Annotated[tuple[OptionalDigest, ...], Meta(max_length=MAX_ROSTER)]


class View(Payload, frozen=True, tag=11):
    """What a member holds of its two latest stages, with the bytes of the messages that HALTs name.

    ``marks`` are the pairs it knows as marked: i n + j for members i < j of n; ``resumed`` says that the recovery
    before this one decided nothing.
    """

    position: Position
    overdue: bool
    holdings: Annotated[tuple[Holding, ...], Meta(max_length=2)]
    supplied: Annotated[tuple[Envelope, ...], Meta(max_length=MAX_SUPPLIED)]
    evidence: Annotated[tuple[Shown, ...], Meta(max_length=MAX_EVIDENCE)]
    halt: Envelope
    marks: PairNumbers
    resumed: bool


class Ballot(Payload, frozen=True, tag=12):
    """A member's only vote in a recovery: who sent no view, and the digest of the views it holds."""

    silent: Peers
    views: Bytes32


class Agree(Payload, frozen=True, tag=13):
    """The sender holds the transcript that it names as previous; everyone says so before anybody leaves by it.

    ``marks`` is the digest of the marked pairs where somebody leaves by them or they follow from that transcript, else
    of none.
    """

    marks: Bytes32


class Resume(Payload, frozen=True, tag=14):
    """A halted member is ready for recovery ``serial``: where it waits, and whose messages it lacks there."""

    position: Position
    missing: Peers


class Conclude(Payload, frozen=True, tag=15):
    """What the final vector gave: the digest of the views that decide, who did not vote, and who showed two."""

    views: Bytes32
    unvoted: Peers
    split: Peers


AnyPayload = (
    Hello
    | Commit
    | Aggregate
    | Reveal
    | Check
    | Confirm
    | Publish
    | Attest
    | DisputePublish
    | Vote
    | Halt
    | View
    | Ballot
    | Agree
    | Resume
    | Conclude
)

PAYLOAD_OF_PHASE: dict[Phase, type[Payload]] = {
    Phase(kind.__struct_config__.tag): kind for kind in get_args(AnyPayload)
}


@dataclass(frozen=True)
class SignedMessage:
    """A message whose signature has been verified, with the very bytes that came; ``sender`` is its slot's."""

    slot: Slot
    roster: bytes
    previous: bytes
    payload: AnyPayload
    envelope: bytes
    digest: bytes
    sender: PeerId = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sender", self.slot.sender)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return f"{self.slot.stage} from {short(self.sender)}"


@dataclass(frozen=True)
class Transcript:
    """All messages of a stage in roster order; its digest is carried by every message of the next one."""

    stage: Stage
    messages: tuple[SignedMessage, ...]

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes that the next stage carries as ``previous``."""
        return compute_transcript_digest(self.stage, [message.digest for message in self.messages])

    @cached_property
    def _by_sender(self) -> dict[PeerId, SignedMessage]:
        return {message.sender: message for message in self.messages}

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getitem__(self, peer: PeerId) -> SignedMessage:
        return self._by_sender[peer]

    def without(self, peers: Sequence[PeerId]) -> "Transcript":
        """The transcript of the members that remain after a ban or removal."""
        return Transcript(self.stage, tuple(message for message in self.messages if message.sender not in peers))


def compute_transcript_digest(stage: Stage, digests: Sequence[bytes]) -> bytes:
    """Return the digest of a stage's messages, given their digests in roster order."""
    number = b"".join(value.to_bytes(8, "little") for value in stage)
    return digest(Context.TRANSCRIPT, number, *digests)
