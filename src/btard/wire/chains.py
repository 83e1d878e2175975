"""
Chains: a member's view and ballot of a recovery with the countersignatures of those who took them in time.

A countersignature says "I hold these bytes, and took them in the step they were due" (rules/dolev_strong.py). It
covers the digests of both messages, which cover run, roster, attempt, serial and sender.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import RemoteProtocolError
from btard.identity import Identity, PeerId, is_signed_by
from btard.rules.evidence import Envelope
from btard.rules.messages import MAX_ROSTER, Bytes32, Phase, Signature, SignedMessage
from btard.rules.roster import Roster
from btard.wire.codec import MAX_MESSAGE, decode, encode
from btard.wire.envelope import open_message

CHAIN_TAG = b"btard 1 countersignature\x00"
MAX_CHAIN = MAX_MESSAGE + 64 * 1024
"""Largest chain in bytes: a view, a ballot, and the countersignatures of 256 members, with much room."""


class Countersignature(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One member's word that it took a view and a ballot in time."""

    signer: Bytes32
    signature: Signature


class Chain(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A view and a ballot of one sender, and whoever countersigned them."""

    view: Envelope
    ballot: Envelope
    signatures: Annotated[tuple[Countersignature, ...], Meta(max_length=MAX_ROSTER)]


@dataclass(frozen=True)
class Cast:
    """The verified view and ballot of one sender, with the countersignatures known."""

    view: SignedMessage
    ballot: SignedMessage
    signatures: Mapping[PeerId, bytes] = field(default_factory=dict)

    @property
    def sender(self) -> PeerId:
        """Whose they are."""
        return self.ballot.sender

    @property
    def value(self) -> bytes:
        """What members countersign: both digests."""
        return self.view.digest + self.ballot.digest

    @property
    def signers(self) -> frozenset[PeerId]:
        """The sender, who signed both, and all who countersigned."""
        return frozenset({self.sender, *self.signatures})

    def countersigned(self, identity: Identity) -> "Cast":
        """The same with our countersignature."""
        mine = identity.sign(CHAIN_TAG + self.value)
        return Cast(self.view, self.ballot, {**self.signatures, identity.peer_id: mine})

    def encode(self) -> bytes:
        """The bytes of its chain."""
        signatures = tuple(Countersignature(*item) for item in sorted(self.signatures.items()))
        return encode(Chain(self.view.envelope, self.ballot.envelope, signatures))


def open_chain(run_id: bytes, roster: Roster, data: bytes) -> Cast | None:
    """Return what a chain of this roster holds, every signature verified; None if it is another roster's.

    Raises:
        RemoteProtocolError: malformed, not a view and a ballot of one sender and recovery, badly signed, or
            countersigned by somebody outside the roster: that is seen before so many signatures are verified.
    """
    chain: Chain = decode(data, Chain, limit=MAX_CHAIN)
    view, ballot = open_message(run_id, chain.view), open_message(run_id, chain.ballot)
    stage = ballot.slot.stage
    belongs = (ballot.sender, ballot.roster, stage._replace(phase=Phase.VIEW))
    if stage.phase is not Phase.BALLOT or (view.sender, view.roster, view.slot.stage) != belongs:
        raise RemoteProtocolError("a chain about something else than one member's view and ballot")
    if ballot.roster != roster.digest:
        return None
    cast = Cast(view, ballot, {PeerId(item.signer): item.signature for item in chain.signatures})
    if any(signer not in roster for signer in cast.signers):
        raise RemoteProtocolError("a chain with the word of somebody who is no member")
    for signer, signature in cast.signatures.items():
        if not is_signed_by(signer, CHAIN_TAG + cast.value, signature):
            raise RemoteProtocolError("a chain with a bad countersignature")
    return cast
