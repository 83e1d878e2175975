"""What a COMMIT transcript settles of the previous round: its seal, its validations, the columns these reopen."""

from collections import Counter
from collections.abc import Sequence

from btard.errors import Undecided
from btard.rules.disputes import Dispute, DisputeKind, find_accusations
from btard.rules.evidence import Cause, DepartureKind, StateProof
from btard.rules.messages import Commit
from btard.rules.seal import SealSignature, has_quorum
from btard.swarm.exchange import NewAttempt
from btard.swarm.services import Services
from btard.swarm.settling import rule_on
from btard.swarm.state import Work
from btard.wire import is_seal_signed_by


async def settle_previous(services: Services, work: Work) -> None:
    """Seal the previous round, then settle the accusations of its validators and the columns these reopen.

    Raises:
        NewAttempt: somebody computes another state, or was convicted.
    """
    if not work.sealed:
        work.sealed = True
        seal_previous(services, work)
    if not work.validations_settled:
        work.validations_settled = True
        await _settle_accusations(services, work)
    while work.reopen:
        part = work.reopen.pop(0)
        assert work.previous is not None
        dispute = Dispute(DisputeKind.COLUMN, work.round - 1, work.previous.parts[part].aggregator, part=part)
        await rule_on(services, work, [dispute], serial=0)


def part_with_leavers(services: Services, work: Work) -> None:
    """Let those go who said goodbye: without blame, after the sealed round and its validations.

    Raises:
        NewAttempt: somebody leaves.
    """
    assert work.commits is not None
    commits = ((message.sender, message.payload) for message in work.commits.messages)
    left = tuple(peer for peer, commit in commits if isinstance(commit, Commit) and commit.goodbye)
    for peer in left:
        services.record(work, peer, DepartureKind.GOODBYE, Cause.GOODBYE, None)
    if left:
        raise NewAttempt(work.round, work.commits.digest, left=left)


def seal_previous(services: Services, work: Work) -> None:
    """Collect the signatures over the previous round's tuple; whoever computed another state leaves without blame.

    Raises:
        NewAttempt: somebody computed another state.
        Undecided: no majority for one state, or too few signatures.
    """
    assert work.commits is not None
    commits = {m.sender: m.payload for m in work.commits.messages if isinstance(m.payload, Commit)}
    states = Counter(commit.state for commit in commits.values())
    common, count = states.most_common(1)[0]
    if count < work.roster.majority:
        raise Undecided(f"round {work.round - 1}: no state has a majority; the swarm stops")
    seal = work.state.seal
    signed = [
        SealSignature(peer, commit.seal)
        for peer, commit in commits.items()
        if is_seal_signed_by(peer, seal, commit.seal)
    ]
    if common == seal.state:
        _record_signatures(services, work, signed)
    others = tuple(peer for peer, commit in commits.items() if commit.state != common)
    if others:
        proof = StateProof(tuple(message.envelope for message in work.commits.messages))
        for peer in others:
            services.record(work, peer, DepartureKind.REMOVAL, Cause.OTHER_STATE, proof)
        raise NewAttempt(work.round, work.commits.digest, removed=others)


def _record_signatures(services: Services, work: Work, signed: Sequence[SealSignature]) -> None:
    if work.previous is None:
        return  # seal 0 is the founder's alone
    if not has_quorum(frozenset(item.signer for item in signed), work.previous.state.roster):
        raise Undecided(f"round {work.round - 1}: its seal has no majority of signatures; the swarm stops")
    services.ledger.record_signatures(work.round - 1, signed)


async def _settle_accusations(services: Services, work: Work) -> None:
    assert work.commits is not None
    accusations = find_accusations(work.commits, work.state.assignments, work.round - 1)
    if accusations:
        await rule_on(services, work, accusations, serial=0)
