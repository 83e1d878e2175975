"""Ed25519 identities: a peer is its public key."""

import os
from pathlib import Path
from typing import NewType

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from btard.durable import create_secret
from btard.errors import ConfigError

PeerId = NewType("PeerId", bytes)
"""A peer's 32-byte Ed25519 public key."""

PEER_ID_SIZE = 32
SIGNATURE_SIZE = 64
SEED_SIZE = 32
KEY_FILE_HEADER = b"btard-identity-1\n"


class Identity:
    """A peer's signing key; never leaves the process except into its 0600 file."""

    def __init__(self, seed: bytes) -> None:
        public, self._key = crypto_sign_seed_keypair(seed)
        self.peer_id = PeerId(public)

    @classmethod
    def generate(cls) -> "Identity":
        """Return a new identity from the operating system's randomness."""
        return cls(os.urandom(32))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes; also the root of values that a restart must derive again."""
        return self._key[:SEED_SIZE]

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of ``data``."""
        return crypto_sign(data, self._key)[:SIGNATURE_SIZE]

    def __repr__(self) -> str:
        return f"<Identity {short(self.peer_id)}>"


def is_signed_by(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` is ``peer``'s over ``data`` (libsodium's strict rules, the only verifier)."""
    try:
        VerifyKey(peer).verify(data, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def short(peer: bytes) -> str:
    """Return the eight hex digits by which people tell peers apart in logs and tables."""
    return peer[:4].hex()


def save_identity(identity: Identity, path: Path) -> None:
    """Write the key to ``path``, readable by its owner only; never overwrites a key, and leaves no part of one.

    Raises:
        ConfigError: the file exists or the directory cannot be written.
    """
    try:
        create_secret(path, KEY_FILE_HEADER + identity.seed.hex().encode() + b"\n")
    except FileExistsError:
        raise ConfigError(f"{path} exists already; a key is never overwritten: choose another path") from None
    except OSError as error:
        advice = "free space or choose a writable directory"
        raise ConfigError(f"cannot write a key to {path}: {error.strerror}; {advice}") from None


def load_identity(path: Path) -> Identity:
    """Return the identity kept in ``path``.

    Raises:
        ConfigError: the file is missing, damaged, or readable by others.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}; make one with btard-peer keygen") from None
    if mode & 0o077:
        raise ConfigError(f"the key {path} is readable by others; run: chmod 600 {path}")
    try:
        seed = bytes.fromhex(content.removeprefix(KEY_FILE_HEADER).decode("ascii").strip())
    except ValueError:
        seed = b""
    if not content.startswith(KEY_FILE_HEADER) or len(seed) != PEER_ID_SIZE:
        raise ConfigError(f"the key file {path} is damaged; restore it from a copy or make a new key")
    return Identity(seed)


def load_or_create_identity(path: Path) -> Identity:
    """Return the identity in ``path``, made first if the file does not exist yet."""
    if not path.exists():
        save_identity(Identity.generate(), path)
    return load_identity(path)
