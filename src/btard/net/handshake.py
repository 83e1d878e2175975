"""
The handshake: Noise XX, and in its encrypted payloads who we are and which run we belong to.

    -> e; behind it the dialling peer's hail, in the clear (see hail.py)
    <- e, ee, s, es   introduction of the answering peer
    -> s, se          introduction of the dialling peer

An introduction holds the peer's Ed25519 key, its signature over (tag, run_id, Noise static key), and
its Terms. The Noise static key is fresh per process; the signature ties it to the identity, and Noise
proves who holds it, so a signature overheard elsewhere is of no use. A dialler that reached the peer it
wanted always sends the third message, so that both sides learn which field differs.
"""

import os
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError

from btard.errors import RemoteProtocolError
from btard.identity import Identity, PeerId, is_signed_by
from btard.net.frames import FrameKey
from btard.net.hail import encode_hail
from btard.net.terms import FIELD_DIGEST_SIZE, MAX_FIELD_NAME, MAX_FIELDS, MAX_RUN_ID, Terms

PROTOCOL = b"Noise_XX_25519_AESGCM_SHA256"
PROLOGUE = b"btard link 2"
SIGNATURE_TAG = b"btard 1 link key\0"
MAX_HANDSHAKE_MESSAGE = 32 << 10

_NOISE_ERRORS = (InvalidTag, NoiseValueError, NoiseHandshakeError, NoiseInvalidMessage, ValueError)
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)

_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
_RunId = Annotated[bytes, msgspec.Meta(max_length=MAX_RUN_ID)]
_Name = Annotated[str, msgspec.Meta(max_length=MAX_FIELD_NAME)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=FIELD_DIGEST_SIZE, max_length=FIELD_DIGEST_SIZE)]
_Fields = Annotated[dict[_Name, _Digest], msgspec.Meta(max_length=MAX_FIELDS)]


class Introduction(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payload of a handshake message; ``serial`` is the dialler's for the link, the accepter's its time in ns."""

    peer: _Key
    signature: _Signature
    run_id: _RunId
    fields: _Fields
    serial: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def terms(self) -> Terms:
        """What the peer says it agrees to."""
        return Terms(self.run_id, self.fields)


_decoder = msgspec.msgpack.Decoder(Introduction)


class Credentials:
    """One process's side of every handshake: its fresh Noise key, signed by its identity for its run."""

    def __init__(self, identity: Identity, terms: Terms) -> None:
        self.peer_id = identity.peer_id
        self.terms = terms
        self._identity = identity
        self.noise_private = os.urandom(32)
        probe = _start(self.noise_private, is_dialler=True)
        self._signature = identity.sign(_statement(terms.run_id, probe.noise_protocol.keypairs["s"].public_bytes))

    def hail(self, serial: int, ephemeral: bytes) -> bytes:
        """Return our hail's bytes for a handshake that begins with this fresh Noise key."""
        return encode_hail(self._identity, self.terms.run_id, serial, ephemeral)

    def introduce(self, serial: int) -> bytes:
        """Return our introduction's bytes."""
        fields = dict(self.terms.fields)
        return msgspec.msgpack.encode(Introduction(self.peer_id, self._signature, self.terms.run_id, fields, serial))


class Handshake:
    """One handshake, without I/O: ``write`` and ``read`` alternate, the dialler writes first."""

    def __init__(self, credentials: Credentials, *, is_dialler: bool) -> None:
        self._me = credentials.peer_id
        self._noise = _start(credentials.noise_private, is_dialler=is_dialler)
        self._state = self._noise.noise_protocol.handshake_state

    def write(self, payload: bytes = b"") -> bytes:
        """Return our next message.

        Raises:
            RemoteProtocolError: the peer's fresh key is one with which all keys share the same secret, zero.
        """
        try:
            return bytes(self._noise.write_message(payload))
        except _NOISE_ERRORS:
            raise RemoteProtocolError("a handshake key is not valid") from None

    def read(self, message: bytes) -> bytes:
        """Return the payload of the peer's next message.

        Raises:
            RemoteProtocolError: the message is not valid.
        """
        try:
            return bytes(self._noise.read_message(message))
        except _NOISE_ERRORS:
            raise RemoteProtocolError("a handshake message is not valid") from None

    def read_introduction(self, message: bytes) -> Introduction:
        """Return the introduction in the peer's next message; its identity signed the Noise key that it uses.

        Raises:
            RemoteProtocolError: the message, the introduction or its signature is not valid, or it is our own.
        """
        introduction = _decode(self.read(message))
        if introduction.peer == self._me:
            raise RemoteProtocolError("it is ourselves")
        statement = _statement(introduction.run_id, self._state.rs.public_bytes)
        if not is_signed_by(PeerId(introduction.peer), statement, introduction.signature):
            raise RemoteProtocolError("an identity did not sign the link key it comes with")
        return introduction

    def split(self) -> tuple[FrameKey, FrameKey]:
        """Return the keys (to send, to receive) of a completed handshake."""
        noise = self._noise.noise_protocol
        return FrameKey(noise.cipher_state_encrypt.k), FrameKey(noise.cipher_state_decrypt.k)


def _start(private: bytes, *, is_dialler: bool) -> Any:
    noise = NoiseConnection.from_name(PROTOCOL)
    if is_dialler:
        noise.set_as_initiator()
    else:
        noise.set_as_responder()
    noise.set_prologue(PROLOGUE)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, private)
    noise.start_handshake()
    return noise


def _statement(run_id: bytes, noise_public: bytes) -> bytes:
    return SIGNATURE_TAG + len(run_id).to_bytes(1, "big") + run_id + noise_public


def _decode(payload: bytes) -> Introduction:
    try:
        return _decoder.decode(payload)
    except _DECODE_ERRORS:
        raise RemoteProtocolError("an introduction is not valid") from None
