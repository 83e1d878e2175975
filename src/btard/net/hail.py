"""
A hail: who dials, said and signed in the clear, behind the first message of a handshake.

To check it takes one signature, a handshake 20 times as much. So a peer that takes no more newcomers for the moment
still knows its own. A hail proves nothing but that: the handshake does the rest.
"""

from typing import Annotated

import msgspec

from btard.identity import Identity, PeerId, is_signed_by

HAIL_TAG = b"btard 1 hail\0"
EPHEMERAL_SIZE = 32
"""Bytes of the first message of a handshake, the dialler's fresh Noise key; a hail follows."""
MAX_HAIL = 128
SERIAL_SIZE = 8


class Hail(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who says that it dials, with the number of the link; signed for one run and one Noise key."""

    peer: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    serial: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    def is_signed(self, run_id: bytes, ephemeral: bytes) -> bool:
        """Return whether ``peer`` signed it for a run, and for a handshake with this Noise key."""
        return is_signed_by(PeerId(self.peer), _state(run_id, self.serial, ephemeral), self.signature)


_decoder = msgspec.msgpack.Decoder(Hail)


def encode_hail(identity: Identity, run_id: bytes, serial: int, ephemeral: bytes) -> bytes:
    """Return what ``identity`` hails with."""
    return msgspec.msgpack.encode(Hail(identity.peer_id, serial, identity.sign(_state(run_id, serial, ephemeral))))


def find_hail(first: bytes) -> Hail | None:
    """Return the hail behind the first message of a handshake, its signature not checked; None if there is none."""
    payload = first[EPHEMERAL_SIZE : EPHEMERAL_SIZE + MAX_HAIL + 1]
    if not payload or len(payload) > MAX_HAIL:
        return None
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _state(run_id: bytes, serial: int, ephemeral: bytes) -> bytes:
    return HAIL_TAG + len(run_id).to_bytes(1, "big") + run_id + serial.to_bytes(SERIAL_SIZE, "big") + ephemeral
