"""
Evidence: why somebody left the roster, in a form that anyone can check afterwards.

Self-contained evidence convicts by itself: two messages for one slot, a broken promise, a column
with its proofs. Evidence by majority shows the signed votes of more than half of the roster. The
audit says which is which. Envelopes are kept as the very bytes that were signed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from btard.identity import PeerId
from btard.rules.messages import MAX_HEADER, MAX_ROSTER, Bytes32, Count, OptionalDigest, Peers, Slot

MAX_ENVELOPE = 768 * 1024
"""Whatever fits on the wire can become evidence: this is the largest message there."""
Envelope = Annotated[bytes, Meta(max_length=MAX_ENVELOPE)]
Header = Annotated[bytes, Meta(max_length=MAX_HEADER + 72)]
"""A header with its signature."""
Envelopes = Annotated[tuple[Envelope, ...], Meta(max_length=MAX_ROSTER)]
Pairs = Annotated[tuple[tuple[Bytes32, Bytes32], ...], Meta(max_length=MAX_ROSTER * MAX_ROSTER // 2)]


@dataclass(frozen=True)
class SignedHeader:
    """What a signature covers, verified: a slot, and a digest of what was said in it; ``encoded`` with the signature.

    It proves who filled the slot, and with what, in a few hundred bytes whatever was said.
    """

    slot: Slot
    digest: bytes
    encoded: bytes

    @property
    def sender(self) -> PeerId:
        """Whoever signed it."""
        return self.slot.sender


class DepartureKind(StrEnum):
    """How a peer left the roster."""

    BAN = "ban"
    REMOVAL = "removal"
    GOODBYE = "goodbye"


class Cause(StrEnum):
    """Why a peer left; the value is the word used in logs, tables and JSON."""

    EQUIVOCATION = "equivocation"
    BROKEN_REVEAL = "broken-reveal"
    FALSE_GRADIENT = "false-gradient"
    FALSE_REPORT = "false-report"
    WRONG_AGGREGATE = "wrong-aggregate"
    FALSE_ACCUSATION = "false-accusation"
    FALSE_NAMING = "false-naming"
    SILENCE = "silence"
    WITHHOLDING = "withholding"
    TOO_MANY_MARKS = "too-many-marks"
    OTHER_STATE = "other-state"
    INCOMPATIBLE = "incompatible"
    GOODBYE = "goodbye"


class Proof(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece of evidence; the round and attempt of its departure tell which roster its messages belong to."""


class EquivocationProof(Proof, frozen=True, tag=0):
    """Self-contained: the signed headers of two messages of one sender for one slot, different bytes."""

    first: Header
    second: Header


class RevealProof(Proof, frozen=True, tag=1):
    """Self-contained: a nonce commitment and a reveal that does not match it."""

    commitment: Envelope
    reveal: Envelope


class SliceProof(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A contributor's committed slice: where its raw float32 bytes are, and the Merkle proof of its chunks."""

    contributor: Bytes32
    blob: Bytes32
    proof: Annotated[tuple[Bytes32, ...], Meta(max_length=128)]


class ColumnProof(Proof, frozen=True, tag=2):
    """Self-contained: commitments, draw of directions, reports, slices and aggregate of one part.

    ``first`` is the roster of the round, ``remaining`` that of the attempt; ``q`` the previous
    round's draw, by which the parts were cut. ``commits`` are those of all who remain: whoever
    committed to a gradient is a contributor, and nobody else. ``reason`` is the digest of why earlier
    attempts ended: hashed with the COMMITs it is what the AGGREGATEs follow, and the REVEALs follow
    these, so whoever is convicted has signed what it is measured by. For a report about one slice that
    slice and its contributor's CHECK suffice. ``aggregate`` and the slices name blobs by digest.
    """

    round: Count
    attempt: Count
    part: Count
    q: Bytes32
    first: Peers
    remaining: Peers
    reason: OptionalDigest
    commits: Envelopes
    aggregates: Envelopes
    reveals: Envelopes
    checks: Envelopes
    slices: Annotated[tuple[SliceProof, ...], Meta(max_length=MAX_ROSTER)]
    aggregate: Bytes32


class CommitOpening(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=0):
    """The COMMITs that opened disputes about the previous round, and what its validators were drawn from.

    ``reason`` is the digest of why earlier attempts ended, hashed with the COMMITs into what the
    publications follow. ``earlier`` are the previous round's COMMITs, which tell its contributors.
    ``checks`` are its CHECKs where its column ``opened`` proved right, for the loud in it are first
    among the targets; there are none where no column was opened.
    """

    reason: OptionalDigest
    commits: Envelopes
    earlier: Envelopes
    checks: Envelopes
    opened: Count


class ConfirmOpening(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """The CONFIRMs that opened disputes about their own round; for a column its CHECKs and AGGREGATEs too."""

    confirms: Envelopes
    checks: Envelopes
    aggregates: Envelopes


class VoteProof(Proof, frozen=True, tag=3):
    """By majority: the agreed votes, what opened the disputes they answer, and which of these decided.

    Dispute ``index`` of those that the opening gives is the one described. The votes follow the
    publications, and these the opening: every voter signed both.
    """

    kind: str
    round: Count
    accused: Bytes32
    accuser: OptionalDigest
    index: Count
    opening: CommitOpening | ConfirmOpening
    publications: Envelopes
    votes: Envelopes


class CertificateProof(Proof, frozen=True, tag=4):
    """By majority: the ballots of a recovery and the views they name."""

    ballots: Envelopes
    views: Envelopes


class ConclusionProof(Proof, frozen=True, tag=8):
    """By majority: equal CONCLUDEs of more than half in a recovery without a certificate, and the views they name."""

    conclusions: Envelopes
    views: Envelopes


class AttestProof(Proof, frozen=True, tag=5):
    """By majority: the agreed attestations; not even half held what complaint ``index`` asked for.

    ``complaints`` are the AGGREGATEs or REVEALs that complain; the publications follow them, and the
    attestations follow the publications: every attester signed both. Between the pairs ``marks`` relays
    pass things on, so whom a complaint is about depends on them; the publications carry their digest.
    """

    index: Count
    marks: Pairs
    complaints: Envelopes
    publications: Envelopes
    attests: Envelopes


class StateProof(Proof, frozen=True, tag=6):
    """By majority: the agreed COMMITs, more than half of which carry another state digest."""

    commits: Envelopes


class MarksProof(Proof, frozen=True, tag=7):
    """By majority: AGREEs of more than half, each with the digest of the marked pairs.

    Each pair has its lower member first. Whoever is in more than f of them, with members of that
    attempt, has failed somebody honest or complained for nothing: it leaves (attacks B1).
    """

    marks: Pairs
    agrees: Envelopes


class ChargeProof(Proof, frozen=True, tag=9):
    """By majority: CONFIRMs that answer the charge of ``checker`` against ``candidate``; each names what it answers."""

    candidate: Bytes32
    checker: Bytes32
    confirms: Envelopes


AnyProof = (
    ConclusionProof
    | EquivocationProof
    | RevealProof
    | ColumnProof
    | VoteProof
    | CertificateProof
    | AttestProof
    | StateProof
    | MarksProof
    | ChargeProof
)


class Departure(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line of the ledger: who left in which round and attempt, how, why, and the proof."""

    peer: Bytes32
    round: Count
    attempt: Count
    kind: DepartureKind
    cause: Cause
    proof: AnyProof | None

    def comes_with(self, attempt: int) -> bool:
        """Return whether it came with the seal of its round, made in ``attempt``; all others begin another attempt."""
        return self.attempt == attempt and (self.kind is DepartureKind.GOODBYE or isinstance(self.proof, ChargeProof))
