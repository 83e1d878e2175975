"""Seals on the wire: their bytes, digests and signatures."""

from collections.abc import Sequence

from btard.identity import Context, Identity, PeerId, digest, is_signed_by
from btard.rules.seal import Seal, SealSignature
from btard.wire.codec import decode, encode

SEAL_TAG = b"btard 1 seal\x00"


def encode_seal(seal: Seal) -> bytes:
    """Return the canonical bytes of a seal's tuple."""
    return encode(seal)


def decode_seal(data: bytes) -> Seal:
    """Return the seal in ``data``.

    Raises:
        RemoteProtocolError: not a seal.
    """
    seal: Seal = decode(data, Seal)
    return seal


def compute_seal_digest(seal: Seal) -> bytes:
    """Return the 32 bytes by which the next seal and every ticket name this one."""
    return digest(Context.SEAL, encode_seal(seal))


def sign_seal(identity: Identity, seal: Seal) -> bytes:
    """Return the 64-byte signature over a seal's tuple."""
    return identity.sign(SEAL_TAG + encode_seal(seal))


def find_valid_signatures(seal: Seal, signatures: Sequence[SealSignature]) -> tuple[SealSignature, ...]:
    """Return those of the signatures that are their signers' over this very tuple."""
    signed = SEAL_TAG + encode_seal(seal)
    return tuple(item for item in signatures if is_signed_by(PeerId(item.signer), signed, item.signature))


def is_seal_signed_by(peer: PeerId, seal: Seal, signature: bytes) -> bool:
    """Return whether ``signature`` is ``peer``'s over this very tuple."""
    return is_signed_by(peer, SEAL_TAG + encode_seal(seal), signature)
