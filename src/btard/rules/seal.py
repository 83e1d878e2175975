"""Seals: what more than half of a roster signed about a finished round; they form a chain."""

from typing import Annotated

from msgspec import Meta, Struct

from btard.rules.messages import MAX_CANDIDATES, Bytes32, Count, OptionalDigest, Peers, Signature
from btard.rules.roster import Roster


class Candidate(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A peer on probation: the round that admitted it, and the rounds in which it has worked since."""

    peer: Bytes32
    since: Count
    worked: Count


class Seal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The tuple of one finished round. Seal 0 is the genesis, signed by the founder alone.

    ``state`` is the Merkle root of the parameters after the round, ``full_state`` also of the
    optimizer's buffers, in every K-th seal and empty otherwise. ``roster`` are the members of the
    next round, ``banned`` all that were ever banned. ``gradient_ms`` is the slowest gradient
    promised at genesis, from which the compute bound follows. ``candidates`` are on probation,
    ``admitted`` of them since the epoch began; ``ticket_bits`` is the difficulty of tickets on this round's draw.
    """

    run_id: Bytes32
    round: Count
    attempt: Count
    transcript: OptionalDigest
    state: Bytes32
    full_state: OptionalDigest
    roster: Peers
    banned: Annotated[tuple[Bytes32, ...], Meta(max_length=65_536)]
    previous: OptionalDigest
    q: Bytes32
    gradient_ms: Count
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=MAX_CANDIDATES)] = ()
    admitted: Count = 0
    ticket_bits: Count = 0


class SealSignature(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One member's signature over a seal's tuple."""

    signer: Bytes32
    signature: Signature


def has_quorum(signers: frozenset[bytes], roster: Roster) -> bool:
    """Return whether more than half of the roster that took part in the round signed its seal."""
    return len(signers & set(roster.members)) >= roster.majority
