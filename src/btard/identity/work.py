"""
Proof of work: what makes an identity, and a place among a run's newcomers, cost something (design section 6).

*Identity work* is hashcash over the key: done once, good for every run, checked in a microsecond; DHT nodes show it
too. A *join ticket* is a nonce whose Argon2id digest, over the run, the key, its identity work and the draw q of a
recent round, begins with enough zero bits. Argon2id fills its memory at every try, so what one core tries bounds what
special hardware gains; q was not known before its round, so no ticket can be older than that (attacks B8, D).

A ticket that a peer presents leads to a `Flaw` or to None, never to an exception. Cheap checks come first: the
one evaluation of Argon2id costs the verifier thousands of times the rest.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from blake3 import blake3
from msgspec import Meta, Struct
from nacl.bindings import crypto_pwhash_alg as compute_argon2
from nacl.bindings import crypto_pwhash_ALG_ARGON2ID13 as ARGON2ID

from btard.identity.digests import DIGEST_SIZE, Context, digest
from btard.identity.keys import PEER_ID_SIZE, PeerId

PASSES = 3
"""Of Argon2id over its memory. At one pass most of the time goes into getting the memory, which a solver that keeps it
saves; and one pass can be traded for less memory."""
SALT_SIZE = 16
MIN_MEMORY_KIB = 8
"""The least that libsodium accepts."""
MAX_MEMORY_KIB = 32 << 10
"""32 MiB, about 50 ms: a founder cannot make verifying a ticket dearer to the members than that."""
MAX_IDENTITY_BITS = 40
MAX_TICKET_BITS = 32
MAX_WINDOW = 1024
"""Rounds: every member keeps the draws of as many, 32 bytes each."""
MAX_NONCE = 2**53
_COUNTED_BITS = 64

_Key = Annotated[bytes, Meta(min_length=PEER_ID_SIZE, max_length=PEER_ID_SIZE)]
_Number = Annotated[int, Meta(ge=0, lt=MAX_NONCE)]


class JoinTicket(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``peer`` asks for a place as a candidate, with work on the draw of ``round``."""

    peer: _Key
    round: _Number
    identity_nonce: _Number
    nonce: _Number


class Flaw(StrEnum):
    """Why a ticket is not accepted, in words for whoever presented it."""

    FUTURE = "it names a round that is not sealed yet"
    STALE = "it names a round too long ago: solve one for the newest round"
    UNKNOWN = "the draw of the round it names is not known here"
    IDENTITY = "its identity work is missing"
    WORK = "its work does not suffice"


@dataclass(frozen=True)
class TicketTerms:
    """What a run asks of every ticket; ``window`` in rounds."""

    run_id: bytes
    identity_bits: int
    memory_kib: int
    window: int


@dataclass(frozen=True)
class Puzzle:
    """What one peer has to solve on the draw ``q`` of ``round``: 2^bits evaluations on average."""

    run_id: bytes
    peer: PeerId
    identity_nonce: int
    round: int
    q: bytes
    memory_kib: int
    bits: int

    def evaluate(self, nonce: int) -> bytes:
        """Return the 32-byte digest of a nonce; takes ``memory_kib`` while it runs, and does not hold the GIL.

        The identity nonce is part of it. Otherwise one solution would do for every identity nonce that suffices,
        and each of them, cheap to find, would be a ticket of its own in the lottery.
        """
        numbers = self.round.to_bytes(8, "little") + self.identity_nonce.to_bytes(8, "little")
        challenge = digest(Context.JOIN_TICKET, self.run_id, self.peer, self.q, numbers)
        secret = challenge + nonce.to_bytes(8, "little")
        memory = self.memory_kib * 1024
        evaluated: bytes = compute_argon2(DIGEST_SIZE, secret, challenge[:SALT_SIZE], PASSES, memory, ARGON2ID)
        return evaluated

    def is_solved_by(self, nonce: int) -> bool:
        """Return whether a nonce is a solution."""
        return has_zero_bits(self.evaluate(nonce), self.bits)

    def make_ticket(self, nonce: int) -> JoinTicket:
        """Return the ticket of a solution."""
        return JoinTicket(self.peer, self.round, self.identity_nonce, nonce)


def pose_puzzle(ticket: JoinTicket, terms: TicketTerms, q: bytes, bits: int) -> Puzzle:
    """Return the puzzle that ``ticket`` claims to solve."""
    peer = PeerId(ticket.peer)
    return Puzzle(terms.run_id, peer, ticket.identity_nonce, ticket.round, q, terms.memory_kib, bits)


def has_zero_bits(value: bytes, bits: int) -> bool:
    """Return whether a digest begins with ``bits`` zero bits, at most 64."""
    return int.from_bytes(value[: _COUNTED_BITS // 8], "big") < 1 << (_COUNTED_BITS - bits)


def is_identity_worked(peer: bytes, nonce: int, bits: int) -> bool:
    """Return whether ``nonce`` is identity work of ``bits`` for the key ``peer``."""
    return find_identity_nonce(peer, bits, nonce, 1) == nonce


def find_identity_nonce(peer: bytes, bits: int, first: int, count: int) -> int | None:
    """Return the first of ``count`` nonces from ``first`` on that is identity work of ``bits``, if there is one."""
    begun = blake3(peer, derive_key_context=Context.IDENTITY_WORK)
    for nonce in range(first, first + count):
        hasher = begun.copy()
        hasher.update(nonce.to_bytes(8, "little"))
        if has_zero_bits(hasher.digest(length=8), bits):
            return nonce
    return None


def find_cheap_flaw(ticket: JoinTicket, terms: TicketTerms, newest: int, q: bytes | None) -> Flaw | None:
    """Return what is wrong with ``ticket`` as far as a few microseconds can tell.

    ``newest`` is the last sealed round, ``q`` the draw of the round that the ticket names, None if not known. A ticket
    is good for the ``window`` rounds from its own on.
    """
    if ticket.round > newest:
        return Flaw.FUTURE
    if newest - ticket.round >= terms.window:
        return Flaw.STALE
    if q is None:
        return Flaw.UNKNOWN
    is_worked = is_identity_worked(ticket.peer, ticket.identity_nonce, terms.identity_bits)
    return None if is_worked else Flaw.IDENTITY


def find_flaw(ticket: JoinTicket, terms: TicketTerms, newest: int, q: bytes | None, bits: int) -> Flaw | None:
    """Return what is wrong with ``ticket``, None if nothing is; the one evaluation comes last.

    ``bits`` is the difficulty of the epoch that the named round belongs to.
    """
    flaw = find_cheap_flaw(ticket, terms, newest, q)
    if flaw or q is None:
        return flaw
    is_solved = pose_puzzle(ticket, terms, q, bits).is_solved_by(ticket.nonce)
    return None if is_solved else Flaw.WORK
