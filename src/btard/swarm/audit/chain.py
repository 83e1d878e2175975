"""
Seals and rosters: an unbroken chain from the genesis on, and nobody gone without a departure.

Rules of this file

1. The roster of a seal is that of the round after it: its predecessor's, less those who left.
2. Every seal but the newest has the signatures of more than half of the roster that made it. The
   newest may lack them: they arrive with the next round's COMMITs, and the peer may have died.
3. A departure decided in an attempt takes effect in the next one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from btard.identity import PeerId, short
from btard.rules.config import RunConfig
from btard.rules.evidence import Departure, DepartureKind
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature, has_quorum
from btard.swarm.audit.contents import Evidence
from btard.wire import compute_seal_digest, find_valid_signatures


@dataclass(frozen=True)
class Chain:
    """The seals of rounds 0, 1, ... and all departures: who was a member when; and the blobs that proofs name."""

    config: RunConfig
    seals: tuple[Seal, ...]
    departures: tuple[Departure, ...]
    evidence: Evidence

    def seal_before(self, number: int) -> Seal | None:
        """The seal that a round starts from."""
        return self.seals[number - 1] if 1 <= number <= len(self.seals) else None

    def roster_before(self, number: int) -> Roster | None:
        """The roster at the start of a round, whose digest its COMMITs carry."""
        seal = self.seal_before(number)
        return Roster.of([PeerId(peer) for peer in seal.roster]) if seal else None

    def basis_of(self, number: int) -> Seal | None:
        """The seal on which departures of a round stand: the one before it, or the newest.

        A peer that was a round behind learns what a recovery settled before it has the seal in between; if it left
        by that itself, or died, it never has.
        """
        return self.seal_before(min(number, len(self.seals))) if number <= len(self.seals) + 1 else None

    def roster_in(self, number: int, attempt: int) -> Roster | None:
        """The roster of an attempt at a round: those who left in earlier attempts are gone."""
        basis = self.basis_of(number)
        if basis is None:
            return None
        since = (item for item in self.departures if basis.round < item.round <= number)
        gone = {item.peer for item in since if item.attempt < attempt}
        return Roster.of([PeerId(peer) for peer in basis.roster if peer not in gone])


def find_seal_problems(chain: Chain, signatures: Mapping[int, Sequence[SealSignature]]) -> Iterator[str]:
    """Yield what is wrong with the links, signatures, rosters and ban lists of the chain."""
    for number, seal in enumerate(chain.seals):
        signed = signatures.get(number, ())
        problems = _check_next(chain, number, signed) if number else _check_genesis(chain, signed)
        yield from (f"seal {number}: {problem}" for problem in problems)
        if seal.round != number or seal.run_id != chain.config.run_id:
            yield f"seal {number}: it belongs to round {seal.round} or to another run"
    for number in sorted(set(signatures) - set(range(len(chain.seals)))):
        yield f"seal {number}: it is missing, but there are signatures over it"


def is_sealed(chain: Chain, number: int, signatures: Mapping[int, Sequence[SealSignature]]) -> bool:
    """Return whether those who had to sign a seal did: the founder for the genesis, else more than half."""
    signers = frozenset(item.signer for item in signatures.get(number, ()))
    if number == 0:
        return bytes.fromhex(chain.config.founder) in signers
    roster = chain.roster_before(number)
    return roster is not None and has_quorum(signers, roster)


def _check_genesis(chain: Chain, signatures: Sequence[SealSignature]) -> Iterator[str]:
    seal = chain.seals[0]
    if seal.attempt or seal.previous or seal.banned:
        yield "the genesis follows something or bans somebody"
    if not _is_sorted(seal.roster):
        yield "its roster is not sorted"
    yield from _check_signatures(chain, 0, signatures, {*seal.roster, bytes.fromhex(chain.config.founder)})


def _check_next(chain: Chain, number: int, signatures: Sequence[SealSignature]) -> Iterator[str]:
    before, seal = chain.seals[number - 1], chain.seals[number]
    if seal.previous != compute_seal_digest(before):
        yield "it does not follow the seal before it"
    if seal.attempt < before.attempt:
        yield "its attempt is older than that of the seal before it"
    if not _is_sorted(seal.roster):
        yield "its roster is not sorted"
    yield from _check_signatures(chain, number, signatures, set(before.roster))
    yield from _check_roster(chain, before, seal)


def _check_signatures(
    chain: Chain, number: int, signatures: Sequence[SealSignature], allowed: set[bytes]
) -> Iterator[str]:
    known = tuple(item for item in signatures if item.signer in allowed)
    valid = frozenset(find_valid_signatures(chain.seals[number], known))
    for item in signatures:
        if item.signer not in allowed:
            yield f"signed by {short(item.signer)}, who was not a member"
        elif item not in valid:
            yield f"the signature of {short(item.signer)} is not valid"
    if number < len(chain.seals) - 1 and not is_sealed(chain, number, {number: signatures}):
        yield "it lacks the signatures of more than half" if number else "the founder did not sign it"


def _is_sorted(peers: Sequence[bytes]) -> bool:
    return list(peers) == sorted(set(peers))


def _check_roster(chain: Chain, before: Seal, seal: Seal) -> Iterator[str]:
    """Everyone who is gone has a departure of that round, everyone newly banned a ban, and nobody else."""
    left = [item for item in chain.departures if item.round == seal.round]
    gone = {item.peer for item in left}
    for peer in sorted(set(before.roster) - set(seal.roster) - gone):
        yield f"peer {short(peer)} left without a departure"
    for peer in sorted(gone & set(seal.roster)):
        yield f"peer {short(peer)} left but is still in the roster"
    for peer in sorted(set(seal.roster) - set(before.roster)):
        yield f"peer {short(peer)} joined without being admitted"
    bans = {item.peer for item in left if item.kind is DepartureKind.BAN}
    for peer in sorted(set(before.banned) - set(seal.banned)):
        yield f"peer {short(peer)} is no longer banned"
    for peer in sorted((set(seal.banned) - set(before.banned)) ^ (bans - set(before.banned))):
        yield f"peer {short(peer)}: the ban list and the departures disagree"


def find_departure_problems(chain: Chain, departure: Departure) -> Iterator[str]:
    """Yield what is wrong with when and from where somebody left; the proof is checked elsewhere."""
    before = chain.basis_of(departure.round)
    if before is None:
        yield "there is no seal before it"
        return
    sealed = departure.round < len(chain.seals)
    last = chain.seals[departure.round].attempt if sealed else departure.attempt
    if not before.attempt <= departure.attempt <= last:
        yield f"attempt {departure.attempt} was not one of its round"
    if departure.peer in before.banned:
        yield "it was banned before"
    elif departure.peer not in before.roster and departure.kind is not DepartureKind.BAN:
        yield "it was not a member"
