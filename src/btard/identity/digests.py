"""
BLAKE3 digests, one context per use.

A context separates the uses of the hash function: a Merkle leaf can never be read as a node, nor
a nonce commitment as a transcript. Parts are length-prefixed, so no two lists of parts collide.
"""

from enum import StrEnum

from blake3 import blake3

DIGEST_SIZE = 32


class Context(StrEnum):
    """Every use of the hash function in btard; the value is BLAKE3's key-derivation context."""

    RUN = "btard 1 run configuration"
    DATASET = "btard 1 dataset fingerprint"
    RUN_SEED = "btard 1 run seed"
    PARAMETERS = "btard 1 initial parameters"
    MINIBATCH = "btard 1 minibatch"
    HOLDOUT = "btard 1 hold-out split"
    CHECKPOINT = "btard 1 checkpoint"
    LEAF = "btard 1 merkle leaf"
    NODE = "btard 1 merkle node"
    ROOT = "btard 1 merkle root"
    STATE = "btard 1 state root"
    ROSTER = "btard 1 roster"
    BANS = "btard 1 ban list"
    MARKS = "btard 1 marked pairs"
    RELAYS = "btard 1 draw of relays"
    PAYLOAD = "btard 1 payload"
    MESSAGE = "btard 1 message"
    TRANSCRIPT = "btard 1 transcript"
    NONCE = "btard 1 nonce commitment"
    NONCE_SECRET = "btard 1 nonce derivation"
    DIRECTIONS = "btard 1 draw of directions"
    VALIDATORS = "btard 1 draw of validators"
    EXPAND = "btard 1 expand randomness"
    SEAL = "btard 1 seal"
    VIEWS = "btard 1 recovery views"
    HELD = "btard 1 messages held"
    EVIDENCE = "btard 1 evidence"
    NODE_ID = "btard 1 dht node id"
    LOT = "btard 1 lot of a join ticket"
    SAMPLE = "btard 1 directions of a candidate's sample"
    CONTACT = "btard 1 dht contact key"
    IDENTITY_WORK = "btard 1 identity work"
    JOIN_TICKET = "btard 1 join ticket"


def digest(context: Context, *parts: bytes) -> bytes:
    """Return the 32-byte digest of ``parts`` under ``context``; part boundaries count."""
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def expand(context: Context, seed: bytes, length: int) -> bytes:
    """Return ``length`` pseudorandom bytes from ``seed``, the same on every machine (BLAKE3 XOF)."""
    return blake3(seed, derive_key_context=context).digest(length=length)
