"""
The verified line of seals from the genesis to the newest: what a newcomer knows of a run for certain.

A line is a bounded sequence of seals, each vouched for by more than half of the roster of the one before it
(``rules/succession.py``). This file holds its value and its check; who asks and who answers is in
``asking_lineage.py`` and ``telling_lineage.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from btard.errors import RemoteProtocolError
from btard.identity import PeerId
from btard.rules.config import RunConfig
from btard.rules.messages import Bytes32, Count
from btard.rules.seal import Seal, SealSignature
from btard.rules.succession import agrees, find_objection
from btard.swarm.frames import SignedTuple
from btard.swarm.genesis import SignedSeal, check_genesis
from btard.wire import compute_seal_digest, decode_seal, find_valid_signatures

MAX_STEPS = 4096
"""Seals of a line: each step but the first outlives half of a roster, so these are some hundred thousand departures."""
MAX_PAGE = 512 * 1024
"""Bytes of seals after which a page ends; the last one may exceed it, and still fits a control message."""
MAX_THROUGH = 4
FROM_GENESIS = -1


class LineQuestion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the line after round ``after`` (-1: from seal 0 on), through the seals with these digests."""

    after: Annotated[int, Meta(ge=FROM_GENESIS, lt=2**53)]
    through: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_THROUGH)]


class LineAnswer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The next seals of the line, and the round of the newest; ``is_known`` unless a wanted seal is not here."""

    seals: Annotated[tuple[SignedTuple, ...], Meta(max_length=MAX_STEPS)]
    newest: Count
    is_known: bool


@dataclass(frozen=True)
class Vouched:
    """A seal, its digest, and the signatures that came with it; those of ``signers`` are valid, others may not be."""

    seal: Seal
    digest: bytes
    signatures: tuple[SealSignature, ...]
    signers: frozenset[bytes]


@dataclass(frozen=True)
class Line:
    """A verified line, seal 0 first; ``source`` is who told it."""

    source: PeerId
    seals: tuple[Vouched, ...]

    @property
    def head(self) -> Vouched:
        """The newest seal."""
        return self.seals[-1]

    def contains(self, digest: bytes) -> bool:
        """Return whether the seal with this digest is one of the line's."""
        return any(item.digest == digest for item in self.seals)

    def agrees_with(self, config: RunConfig, older: Vouched) -> bool:
        """Return whether a seal of the line is ``older``, or follows it."""
        later = (item for item in self.seals if item.seal.round >= older.seal.round)
        return any(agrees(config, older.seal, older.digest, item.seal, item.signers) for item in later)

    def before(self, number: int) -> tuple[Vouched, ...]:
        """Return the seals of the rounds before one."""
        return tuple(item for item in self.seals if item.seal.round < number)

    def skip(self, config: RunConfig, place: int) -> "Line":
        """Return the line without its seal at ``place`` where the one before vouches for the one after, else itself."""
        if not 0 < place < len(self.seals) - 1:
            return self
        before, after = self.seals[place - 1], self.seals[place + 1]
        if find_objection(config, before.seal, before.digest, after.seal, after.signers) is not None:
            return self
        return Line(self.source, (*self.seals[:place], *self.seals[place + 1 :]))


def open_genesis(config: RunConfig, item: SignedTuple) -> Vouched:
    """Return seal 0, signed by the founder.

    Raises:
        RemoteProtocolError: it is not.
    """
    seal = decode_seal(item.seal)
    signature = next((each.signature for each in item.signatures if each.signer == config.founder_id), bytes(64))
    check_genesis(SignedSeal(seal, signature), config)
    signatures = (SealSignature(config.founder_id, signature),)
    return Vouched(seal, compute_seal_digest(seal), signatures, frozenset((config.founder_id,)))


def open_next(config: RunConfig, before: Vouched, item: SignedTuple) -> Vouched:
    """Return the seal that follows a verified one.

    Raises:
        RemoteProtocolError: it does not; the message says why.
    """
    seal = decode_seal(item.seal)
    signers = find_signers(before.seal, seal, item.signatures)
    refusal = find_objection(config, before.seal, before.digest, seal, signers)
    if refusal is not None:
        raise RemoteProtocolError(refusal)
    return Vouched(seal, compute_seal_digest(seal), item.signatures, signers)


def find_signers(before: Seal, seal: Seal, signatures: Sequence[SealSignature]) -> frozenset[bytes]:
    """Return which members of a seal's own roster, and of that of one before it, signed it."""
    members = frozenset((*before.roster, *seal.roster))
    claimed = {item.signer: item for item in signatures if item.signer in members}
    return frozenset(item.signer for item in find_valid_signatures(seal, tuple(claimed.values())))
