"""
Signed envelopes: body bytes and one Ed25519 signature.

The signature covers a tag, the run, the roster, round, attempt, phase, serial, sender, the previous
transcript's digest and the payload, so no message can be replayed in another place. The bytes that
were signed are kept: they are what evidence consists of, and nothing is ever encoded again.
"""

from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import RemoteProtocolError
from btard.identity import Context, Identity, PeerId, digest, is_signed_by
from btard.rules.messages import (
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


class Envelope(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The outer layer: signed bytes and signature."""

    body: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]
    signature: Signature


class Body(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything a signature covers."""

    run_id: Bytes32
    roster: Bytes32
    round: Count
    attempt: Count
    phase: Annotated[int, Meta(ge=0, le=15)]
    serial: Count
    sender: Bytes32
    previous: OptionalDigest
    payload: AnyPayload


def sign_message(
    identity: Identity, run_id: bytes, roster: bytes, stage: Stage, previous: bytes, payload: AnyPayload
) -> SignedMessage:
    """Return the payload signed for its slot. Whether that slot may be signed is the ledger's business."""
    body = encode(Body(run_id, roster, *_stage_fields(stage), identity.peer_id, previous, payload))
    envelope = encode(Envelope(body, identity.sign(ENVELOPE_TAG + body)))
    slot = Slot(stage, identity.peer_id)
    return SignedMessage(slot, roster, previous, payload, envelope, digest(Context.MESSAGE, body))


def _stage_fields(stage: Stage) -> tuple[int, int, int, int]:
    return stage.round, stage.attempt, int(stage.phase), stage.serial


def open_message(run_id: bytes, envelope: bytes) -> SignedMessage:
    """Return the message in an envelope, its signature verified by the one strict routine.

    Raises:
        RemoteProtocolError: malformed, of another run, payload and phase differ, or badly signed; it
            names no peer, for until the signature is verified anybody may have written the sender.
    """
    outer: Envelope = decode(envelope, Envelope)
    body: Body = decode(outer.body, Body)
    if body.run_id != run_id:
        raise RemoteProtocolError("a message of another run")
    phase = Phase(body.phase)
    if type(body.payload).__struct_config__.tag != int(phase):
        raise RemoteProtocolError("a message whose payload belongs to another phase")
    if not is_signed_by(PeerId(body.sender), ENVELOPE_TAG + outer.body, outer.signature):
        raise RemoteProtocolError("a message with a bad signature")
    stage = Stage(body.round, body.attempt, phase, body.serial)
    slot = Slot(stage, PeerId(body.sender))
    return SignedMessage(
        slot, body.roster, body.previous, body.payload, bytes(envelope), digest(Context.MESSAGE, outer.body)
    )
