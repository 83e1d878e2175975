"""
Seals and rosters: an unbroken chain from the genesis on, and nobody gone without a departure.

Rules of this file

1. The roster of a seal is that of the round after it: its predecessor's, less those who left, with a candidate
   that was promoted. Whoever said goodbye is not in it, and stays until it has signed it. A peer that joined
   midway has the seals from the one on that names it a member.
2. Every seal but the newest has the signatures of more than half of the roster that made it. The
   newest may lack them: they arrive with the next round's COMMITs, and the peer may have died.
3. A departure decided in an attempt takes effect in the next one. Where it takes the newest seal back, that is not
   signed, and counts for nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from btard.identity import PeerId, short
from btard.rules.config import RunConfig
from btard.rules.evidence import Departure, DepartureKind
from btard.rules.roster import Roster
from btard.rules.seal import Candidate, Seal, SealSignature, has_quorum
from btard.swarm.audit.contents import Evidence
from btard.wire import compute_seal_digest, find_valid_signatures


@dataclass(frozen=True)
class Chain:
    """The seals of consecutive rounds and all departures: who was a member when; and the blobs that proofs name.

    ``owner`` is whose ledger it is, ``spoken`` by attempt the roster for which it signed its messages then.
    """

    config: RunConfig
    seals: tuple[Seal, ...]
    departures: tuple[Departure, ...]
    evidence: Evidence
    owner: PeerId
    spoken: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The round of the first seal: 0, or the one with which the owner became a member."""
        return self.seals[0].round if self.seals else 0

    @property
    def newest(self) -> int:
        """The round of the last seal, one less than the first without any."""
        return self.first + len(self.seals) - 1

    def seal_of(self, number: int) -> Seal | None:
        """The seal of a round."""
        return self.seals[number - self.first] if self.first <= number <= self.newest else None

    def seal_before(self, number: int) -> Seal | None:
        """The seal that a round starts from."""
        return self.seal_of(number - 1)

    def newcomers_in(self, number: int) -> frozenset[bytes]:
        """The members whose first round it is: they did not see the one before."""
        seal, before = self.seal_of(number - 1), self.seal_of(number - 2)
        if seal is not None and before is not None:
            return frozenset(seal.roster) - frozenset(before.roster)
        return frozenset((self.owner,)) if number == self.first + 1 and self.first else frozenset()

    def leavers_in(self, number: int) -> frozenset[bytes]:
        """Who left with the seal before a round, by a goodbye: they say a COMMIT in it, and sign that seal."""
        seal = self.seal_before(number)
        left = [item for item in self.departures if seal and item.round == seal.round and item.comes_with(seal.attempt)]
        return frozenset(item.peer for item in left if item.kind is DepartureKind.GOODBYE)

    def electorate_in(self, number: int, attempt: int) -> Roster | None:
        """The members of an attempt that saw the round before: they decide what is disputed about it."""
        roster = self.roster_in(number, attempt)
        return roster and roster.without([PeerId(peer) for peer in self.newcomers_in(number)])

    def find_unexplained(self, number: int) -> frozenset[bytes]:
        """Who left, or was banned as a candidate, in the owner's first round: of that its ledger has the seal alone."""
        before, seal = self.seal_of(number - 1), self.seal_of(number)
        if not self.first or number != self.first + 1 or before is None or seal is None:
            return frozenset()
        known = {item.peer for item in self.departures if item.round == number}
        left, banned = set(before.roster) - set(seal.roster), set(seal.banned) - set(before.banned)
        return frozenset(left | banned) - known

    def roster_before(self, number: int) -> Roster | None:
        """The roster at the start of a round, whose digest its COMMITs carry."""
        seal = self.seal_before(number)
        return Roster.of([PeerId(peer) for peer in seal.roster]) if seal else None

    def basis_of(self, number: int) -> Seal | None:
        """The seal on which departures of a round stand: the one before it, or the newest.

        A peer that was a round behind learns what a recovery settled before it has the seal in between; if it left
        by that itself, or died, it never has.
        """
        return self.seal_before(min(number, self.newest + 1)) if number <= self.newest + 2 else None

    def roster_in(self, number: int, attempt: int) -> Roster | None:
        """The roster of an attempt at a round: those who left in earlier attempts are gone.

        Newcomers are in it from some attempt of their first round on, leavers up to some attempt of their last: where
        that is, the owner's own words tell.
        """
        basis = self.basis_of(number)
        if basis is None:
            return None
        since = (item for item in self.departures if basis.round < item.round <= number)
        gone = {item.peer for item in since if item.attempt < attempt} | self.find_unexplained(number)
        whole = Roster.of([PeerId(peer) for peer in basis.roster if peer not in gone])
        before = whole.without([PeerId(peer) for peer in self.newcomers_in(number)])
        leavers = frozenset(map(PeerId, self.leavers_in(number) - gone)) if basis.round == number - 1 else frozenset()
        opening = Roster.of(before.everyone | leavers)
        return next((item for item in (opening, before) if self.spoken.get(attempt) == item.digest), whole)


def find_seal_problems(chain: Chain, signatures: Mapping[int, Sequence[SealSignature]]) -> Iterator[str]:
    """Yield what is wrong with the links, signatures, rosters and ban lists of the chain."""
    for number, seal in enumerate(chain.seals, chain.first):
        signed = signatures.get(number, ())
        check = _check_next if number > chain.first else _check_entry if number else _check_genesis
        yield from (f"seal {number}: {problem}" for problem in check(chain, number, signed))
        if seal.round != number or seal.run_id != chain.config.run_id:
            yield f"seal {number}: it belongs to round {seal.round} or to another run"
    for number in sorted(set(signatures) - set(range(chain.first, chain.newest + 1))):
        yield f"seal {number}: it is missing, but there are signatures over it"


def is_sealed(chain: Chain, number: int, signatures: Mapping[int, Sequence[SealSignature]]) -> bool:
    """Return whether those who had to sign a seal did: the founder for the genesis, else more than half."""
    signers = frozenset(item.signer for item in signatures.get(number, ()))
    if number == 0:
        return bytes.fromhex(chain.config.founder) in signers
    roster = chain.roster_before(number) or chain.electorate_in(number + 1, chain.seals[0].attempt)
    return roster is not None and has_quorum(signers, roster)


def _check_genesis(chain: Chain, number: int, signatures: Sequence[SealSignature]) -> Iterator[str]:
    seal = chain.seals[0]
    if seal.attempt or seal.previous or seal.banned:
        yield "the genesis follows something or bans somebody"
    if not _is_sorted(seal.roster):
        yield "its roster is not sorted"
    yield from _check_signatures(chain, number, signatures, {*seal.roster, bytes.fromhex(chain.config.founder)})


def _check_entry(chain: Chain, number: int, signatures: Sequence[SealSignature]) -> Iterator[str]:
    """The seal with which the owner became a member: more than half of the others signed it, as far as we can tell."""
    seal = chain.seals[0]
    if not _is_sorted(seal.roster) or chain.owner not in seal.roster:
        yield "the ledger does not begin with the genesis, nor with a seal that names its owner a member"
    allowed = {*seal.roster, *chain.leavers_in(number + 1)} - {chain.owner}
    yield from _check_signatures(chain, number, signatures, allowed)


def _check_next(chain: Chain, number: int, signatures: Sequence[SealSignature]) -> Iterator[str]:
    before, seal = chain.seal_of(number - 1), chain.seal_of(number)
    assert before is not None
    assert seal is not None
    if seal.previous != compute_seal_digest(before):
        yield "it does not follow the seal before it"
    if seal.attempt < before.attempt:
        yield "its attempt is older than that of the seal before it"
    if not _is_sorted(seal.roster):
        yield "its roster is not sorted"
    yield from _check_signatures(chain, number, signatures, set(before.roster))
    if not _is_taken_back(chain, seal, signatures):
        yield from _check_roster(chain, before, seal)


def _is_taken_back(chain: Chain, seal: Seal, signatures: Sequence[SealSignature]) -> bool:
    """Return whether the owner left, or died, before the round of its newest seal was run again without somebody."""
    if seal.round < chain.newest or is_sealed(chain, seal.round, {seal.round: signatures}):
        return False
    return any(
        item.round == seal.round and item.attempt >= seal.attempt and not item.comes_with(seal.attempt)
        for item in chain.departures
    )


def _check_signatures(
    chain: Chain, number: int, signatures: Sequence[SealSignature], allowed: set[bytes]
) -> Iterator[str]:
    known = tuple(item for item in signatures if item.signer in allowed)
    seal = chain.seal_of(number)
    assert seal is not None
    valid = frozenset(find_valid_signatures(seal, known))
    for item in signatures:
        if item.signer not in allowed:
            yield f"signed by {short(item.signer)}, who was not a member"
        elif item not in valid:
            yield f"the signature of {short(item.signer)} is not valid"
    if number < chain.newest and not is_sealed(chain, number, {number: signatures}):
        yield "it lacks the signatures of more than half" if number else "the founder did not sign it"


def _is_sorted(peers: Sequence[bytes]) -> bool:
    return list(peers) == sorted(set(peers))


def _check_roster(chain: Chain, before: Seal, seal: Seal) -> Iterator[str]:
    """Everyone who is gone has a departure of that round, everyone newly banned a ban, and nobody else."""
    left = [item for item in chain.departures if item.round == seal.round]
    unexplained = chain.find_unexplained(seal.round)
    gone = {item.peer for item in left} | unexplained
    for peer in sorted(set(before.roster) - set(seal.roster) - gone):
        yield f"peer {short(peer)} left without a departure"
    for peer in sorted(gone & set(seal.roster)):
        yield f"peer {short(peer)} left but is still in the roster"
    candidates = {item.peer: item for item in before.candidates}
    for peer in sorted(set(seal.roster) - set(before.roster)):
        if peer not in candidates or candidates[peer].worked + 1 < chain.config.probation:
            yield f"peer {short(peer)} joined without having been on probation"
    for item in seal.candidates:
        known = candidates.get(item.peer)
        if item not in _find_next(seal, known) or item.peer in seal.roster:
            yield f"peer {short(item.peer)} is on probation in a way to which nothing leads"
    bans = {item.peer for item in left if item.kind is DepartureKind.BAN}
    for peer in sorted(set(before.banned) - set(seal.banned)):
        yield f"peer {short(peer)} is no longer banned"
    for peer in sorted((set(seal.banned) - set(before.banned) - unexplained) ^ (bans - set(before.banned))):
        yield f"peer {short(peer)}: the ban list and the departures disagree"


def _find_next(seal: Seal, known: Candidate | None) -> tuple[Candidate | None, ...]:
    """What a candidate can be after a round: one that was admitted in it, or the same, with a round of work or not."""
    if known is None:
        return tuple(Candidate(item.peer, seal.round, 0) for item in seal.candidates)
    return known, Candidate(known.peer, known.since, known.worked + 1)


def find_departure_problems(chain: Chain, departure: Departure) -> Iterator[str]:
    """Yield what is wrong with when and from where somebody left; the proof is checked elsewhere."""
    before = chain.basis_of(departure.round)
    if before is None and departure.peer in chain.leavers_in(departure.round + 1):
        return  # with the seal by which the owner is a member
    if before is None:
        yield "there is no seal before it"
        return
    sealed = chain.seal_of(departure.round)
    last = sealed.attempt if sealed else departure.attempt
    if not before.attempt <= departure.attempt <= last:
        yield f"attempt {departure.attempt} was not one of its round"
    if departure.peer in before.banned:
        yield "it was banned before"
    known = {*before.roster, *chain.leavers_in(departure.round), *(item.peer for item in before.candidates)}
    if departure.peer not in {*known, *before.banned} and departure.kind is not DepartureKind.BAN:
        yield "it was neither a member nor a candidate"
