"""What a COMMIT transcript settles of the previous round: its seal, its validations, the columns these reopen."""

from collections import Counter
from collections.abc import Sequence

from btard.errors import Undecided
from btard.identity import PeerId
from btard.rules.disputes import Dispute, DisputeKind, find_accusations
from btard.rules.evidence import Cause, DepartureKind, StateProof
from btard.rules.messages import Commit
from btard.rules.seal import SealSignature, has_quorum
from btard.swarm.charging import find_sealed_departures
from btard.swarm.exchange import NewAttempt
from btard.swarm.services import Services
from btard.swarm.settling import rule_on
from btard.swarm.state import Work
from btard.wire import find_valid_signatures


async def settle_previous(services: Services, work: Work) -> None:
    """Seal the previous round, then settle the accusations of its validators and the columns these reopen.

    Raises:
        NewAttempt: somebody computes another state, or was convicted.
    """
    common = find_common_state(work)
    if not work.sealed:
        seal_previous(work, common)
        work.sealed = True
    await _part_with_strangers(services, work, common)
    for disputes in (find_open_accusations(work), find_open_columns(work)[:1]):
        if disputes:
            await rule_on(services, work, disputes, serial=0)


def find_open_accusations(work: Work) -> list[Dispute]:
    """Return the accusations by validators of the previous round that no agreed votes have settled yet."""
    assert work.commits is not None
    accusations = find_accusations(work.commits, work.state.assignments, work.round - 1)
    return [dispute for dispute in accusations if dispute not in work.settled]


def find_open_columns(work: Work) -> list[Dispute]:
    """Return the columns of the previous round on which a false report was convicted, unless opened by now."""
    if work.previous is None:
        return []
    parts = [work.previous.parts[index] for index in work.reopen]
    columns = [Dispute(DisputeKind.COLUMN, work.previous.round, part.aggregator, part=part.index) for part in parts]
    return [dispute for dispute in columns if dispute not in work.settled]


async def part_with_leavers(services: Services, work: Work) -> None:
    """Let those go who said goodbye in the round before: without blame, now that they have signed its seal.

    That seal is without them already. Had they left before they signed it, those who remain might be too few for more
    than half of the roster that made it, which counts them. What settled it is on disk before they go: after a power
    cut nobody else could tell those who remain, and the attempt before does not go on without the leavers.

    Raises:
        NewAttempt: somebody leaves.
    """
    assert work.commits is not None
    if work.leavers:
        await services.exchange.agree(work, services.deadlines.check)
        keep_signatures(services, work)
        services.ledger.sync()
        raise NewAttempt(work.round, work.commits.digest, left=tuple(sorted(work.leavers)))


async def take_in_newcomers(services: Services, work: Work) -> None:
    """Let those be members from here on who were promoted by the round before: once nothing of it is open.

    Raises:
        NewAttempt: somebody joins.
    """
    assert work.commits is not None
    if work.awaited:
        await services.exchange.agree(work, services.deadlines.check)
        raise NewAttempt(work.round, work.commits.digest, joined=work.awaited)


def seal_previous(work: Work, common: bytes) -> None:
    """Collect the signatures over the previous round's tuple, if our own state is the common one.

    Raises:
        Undecided: too few signatures.
    """
    seal = work.state.seal
    if common == seal.state:
        claimed = tuple(SealSignature(peer, commit.seal) for peer, commit in _read_commits(work).items())
        work.signatures = _require_quorum(work, find_valid_signatures(seal, claimed))


def _read_commits(work: Work) -> dict[PeerId, Commit]:
    assert work.commits is not None
    return {m.sender: m.payload for m in work.commits.messages if isinstance(m.payload, Commit)}


def find_common_state(work: Work) -> bytes:
    """Return the state that more than half of the roster came to.

    Raises:
        Undecided: there is none.
    """
    states = Counter(commit.state for commit in _read_commits(work).values())
    common, count = states.most_common(1)[0]
    if count < work.roster.majority:
        raise Undecided(f"round {work.round - 1}: no state has a majority; the swarm stops")
    return common


async def _part_with_strangers(services: Services, work: Work, common: bytes) -> None:
    """Let those go who came to another state than most: without blame, for hardware does that too.

    Raises:
        NewAttempt: somebody did.
    """
    others = tuple(peer for peer, commit in _read_commits(work).items() if commit.state != common)
    if others:
        assert work.commits is not None
        await services.exchange.agree(work, services.deadlines.check)
        proof = StateProof(tuple(message.envelope for message in work.commits.messages))
        for peer in others:
            services.record(work, peer, DepartureKind.REMOVAL, Cause.OTHER_STATE, proof)
        raise NewAttempt(work.round, work.commits.digest, removed=others)


def keep_signatures(services: Services, work: Work) -> None:
    """Write down the signatures over the previous round's seal; from now on that round is not run again.

    Not before everyone is known to hold the COMMITs: until then a recovery may still resume that round. So only now is
    it certain who left with that seal. Whoever is taken in after that is handed them as well.
    """
    if work.signatures and not services.ledger.signatures(work.round - 1):
        services.ledger.record_signatures(work.round - 1, work.signatures)
        for departure in find_sealed_departures(work.previous) if work.previous is not None else ():
            services.tell(departure)
    work.close_previous()


def _require_quorum(work: Work, signed: Sequence[SealSignature]) -> Sequence[SealSignature]:
    if work.previous is None:
        return ()  # seal 0 is the founder's alone
    if not has_quorum(frozenset(item.signer for item in signed), work.previous.state.roster):
        raise Undecided(f"round {work.round - 1}: its seal has no majority of signatures; the swarm stops")
    return signed
