"""
Signed envelopes: a header, one Ed25519 signature over it, and the payload that it names by its digest.

The header covers a tag, the run, the roster, round, attempt, phase, serial, sender, the previous transcript's digest
and the payload's, so no message can be replayed in another place. Header and signature alone prove that somebody
filled a slot: two of them convict a double-signer in a few hundred bytes, however long the messages are. The bytes
that were signed are kept: they are what evidence consists of, and nothing is ever encoded again.
"""

from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import RemoteProtocolError
from btard.identity import Context, Identity, PeerId, digest, is_signed_by
from btard.rules.evidence import EquivocationProof, SignedHeader
from btard.rules.messages import (
    MAX_HEADER,
    AnyPayload,
    Bytes32,
    Count,
    OptionalDigest,
    Phase,
    Signature,
    SignedMessage,
    Slot,
    Stage,
)
from btard.wire.codec import MAX_MESSAGE, decode, encode

ENVELOPE_TAG = b"btard 1 envelope\x00"

HeaderBytes = Annotated[bytes, Meta(max_length=MAX_HEADER)]


class Envelope(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The outer layer: signed bytes, signature, and the payload."""

    header: HeaderBytes
    signature: Signature
    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]


class Seen(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An envelope without its payload."""

    header: HeaderBytes
    signature: Signature


class Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything a signature covers."""

    run_id: Bytes32
    roster: Bytes32
    round: Count
    attempt: Count
    phase: Annotated[int, Meta(ge=0, le=15)]
    serial: Count
    sender: Bytes32
    previous: OptionalDigest
    payload: Bytes32


def sign_message(
    identity: Identity, run_id: bytes, roster: bytes, stage: Stage, previous: bytes, payload: AnyPayload
) -> SignedMessage:
    """Return the payload signed for its slot. Whether that slot may be signed is the ledger's business."""
    said = encode(payload)
    place = stage.round, stage.attempt, int(stage.phase), stage.serial
    header = encode(Header(run_id, roster, *place, identity.peer_id, previous, digest(Context.PAYLOAD, said)))
    envelope = encode(Envelope(header, identity.sign(ENVELOPE_TAG + header), said))
    slot = Slot(stage, identity.peer_id)
    return SignedMessage(slot, roster, previous, payload, envelope, digest(Context.MESSAGE, header))


def open_message(run_id: bytes, envelope: bytes) -> SignedMessage:
    """Return the message in an envelope, its signature verified by the one strict routine.

    Raises:
        RemoteProtocolError: malformed, of another run, payload and phase differ, or badly signed; it
            names no peer, for until the signature is verified anybody may have written the sender.
    """
    outer: Envelope = decode(envelope, Envelope)
    header: Header = decode(outer.header, Header)
    if header.run_id != run_id:
        raise RemoteProtocolError("a message of another run")
    if len(envelope) != _compute_length(outer):  # what counts by its length must have one, and nobody signs this layer
        raise RemoteProtocolError("an envelope that is not the shortest")
    if digest(Context.PAYLOAD, outer.payload) != header.payload:
        raise RemoteProtocolError("a message with another payload than its header names")
    payload: AnyPayload = decode(outer.payload, AnyPayload)  # type: ignore[arg-type]
    if type(payload).__struct_config__.tag != header.phase:
        raise RemoteProtocolError("a message whose payload belongs to another phase")
    slot = _verify(header, outer.header, outer.signature)
    message = digest(Context.MESSAGE, outer.header)
    return SignedMessage(slot, header.roster, header.previous, payload, bytes(envelope), message)


def _compute_length(outer: Envelope) -> int:
    """Return the bytes of the shortest encoding: an array of three byte strings."""
    said = len(outer.payload)
    head = 2 if said < 1 << 8 else 3 if said < 1 << 16 else 5
    return 1 + (2 + len(outer.header)) + (2 + len(outer.signature)) + head + said


def open_header(run_id: bytes, data: bytes) -> SignedHeader:
    """Return the header of a message that is not shown, its signature verified.

    Raises:
        RemoteProtocolError: malformed, of another run, or badly signed.
    """
    outer: Seen = decode(data, Seen)
    header: Header = decode(outer.header, Header)
    if header.run_id != run_id:
        raise RemoteProtocolError("a header of another run")
    slot = _verify(header, outer.header, outer.signature)
    return SignedHeader(slot, digest(Context.MESSAGE, outer.header), bytes(data))


def take_header(message: SignedMessage) -> SignedHeader:
    """Return the header of a message with its signature, as evidence shows it."""
    outer: Envelope = decode(message.envelope, Envelope)
    return SignedHeader(message.slot, message.digest, encode(Seen(outer.header, outer.signature)))


def prove_equivocation(first: SignedMessage, second: SignedMessage) -> EquivocationProof:
    """Return the evidence that two messages are; whether they fill one slot is the caller's business."""
    return EquivocationProof(*(take_header(message).encoded for message in (first, second)))


def _verify(header: Header, signed: bytes, signature: bytes) -> Slot:
    if not is_signed_by(PeerId(header.sender), ENVELOPE_TAG + signed, signature):
        raise RemoteProtocolError("a message with a bad signature")
    return Slot(Stage(header.round, header.attempt, Phase(header.phase), header.serial), PeerId(header.sender))
