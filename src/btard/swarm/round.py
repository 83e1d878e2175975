"""
One round, top to bottom, in the order of the paper's Algorithm 1 (BTARD-SGD).

    COMMIT     g_i is computed and committed to; round t-1 is sealed and its validations settled
    AGGREGATE  slices are scattered; each aggregator reduces its part by CenteredClip and commits to it
    REVEAL     aggregates are gathered; the draw r fixes the directions of Verification 1
    CHECK      everyone reports projections and norms
    CONFIRM    the draw q fixes who validates whom; aggregators name false reports; charges are answered
    verify     Verifications 1 and 2; what they open is settled
    update     x_{t+1}

Whatever makes somebody leave raises NewAttempt: the round runs again, from AGGREGATE on, with those
who remain and under the same commitments. Every step below may therefore be entered again.
"""

from collections.abc import Sequence

from torch import Tensor

from btard.identity import PeerId
from btard.rules.admission import Admission, decide_admission, draw_checks, find_works
from btard.rules.admission import Work as CandidateWork
from btard.rules.config import RunConfig
from btard.rules.draws import combine_nonces, draw_round_validators
from btard.rules.evidence import Departure, DepartureKind
from btard.rules.seal import Seal
from btard.rules.succession import roster_of
from btard.swarm.aggregation import aggregate, reveal
from btard.swarm.charging import find_sealed_departures, part_with_losers
from btard.swarm.checking import Verified, check, confirm, verify
from btard.swarm.committing import commit
from btard.swarm.complaining import part_with_overmarked
from btard.swarm.parting import see_off
from btard.swarm.refetching import refetch_parts, refetch_slices
from btard.swarm.sealing import keep_signatures, part_with_leavers, settle_previous, take_in_newcomers
from btard.swarm.services import Services
from btard.swarm.state import State, Work, compute_full_state_root, compute_state_root
from btard.swarm.workload import OptimizerState
from btard.wire import compute_seal_digest


async def run_round(services: Services, work: Work) -> State:
    """Return the state after one step of BTARD-SGD.

    Raises:
        NewAttempt: somebody leaves; run again with what ``work`` keeps.
        Undecided: the previous round has no majority behind one state or seal.
    """
    await commit(services, work)
    await settle_previous(services, work)
    await part_with_leavers(services, work)
    await part_with_overmarked(services, work)
    await take_in_newcomers(services, work)
    refetch_slices(services, work)
    await aggregate(services, work)
    keep_signatures(services, work)
    refetch_parts(services, work)
    await reveal(services, work)
    await check(services, work)
    confirms = await confirm(services, work)
    await part_with_losers(services, work)
    verified = await verify(services, work, confirms)
    return await update(services, work, verified)


async def close_run(services: Services, work: Work) -> None:
    """One COMMIT without a gradient after the last round, so that no round stays unsealed or unvalidated."""
    await commit(services, work, is_closing=True)
    await settle_previous(services, work)
    if await see_off(services, work):
        keep_signatures(services, work)


async def update(services: Services, work: Work, verified: Verified) -> State:
    """Apply the optimizer to ĝ, draw the validators, tie up the seal; provisional until the next COMMITs agree."""
    config = services.config
    q = combine_nonces(verified.confirms)
    departures = find_sealed_departures(work)
    banned = work.banned | {PeerId(item.peer) for item in departures if item.kind is DepartureKind.BAN}
    works, admission = admit(config, work, departures)

    def compute() -> tuple[Tensor, OptimizerState, Seal]:
        parameters, optimizer = _step(services, work)
        return parameters, optimizer, build_seal(config, work, q, parameters, optimizer, banned, admission)

    parameters, optimizer, seal = await services.compute.run(compute)
    services.ledger.record_seal(seal, departures)
    return State(
        round=work.round + 1,
        attempt=work.attempt,
        roster=roster_of(seal),
        parameters=parameters,
        optimizer=optimizer,
        seal=seal,
        seal_digest=compute_seal_digest(seal),
        chain=work.chain,
        banned=banned,
        assignments=draw_round_validators(config, q, work.staying, work.contributors, verified.loud),
        exempt=verified.exempt,
        marks=work.next_marks,
        newcomers=frozenset(admission.promoted),
        checks=draw_checks(config, q, work.roster, works),
        due=work.state.checks,
    )


def admit(
    config: RunConfig, work: Work, departures: Sequence[Departure]
) -> tuple[tuple[CandidateWork, ...], Admission]:
    """Return what candidates have done, and who is on probation or a member by this round's COMMITs."""
    assert work.commits is not None
    seal, gone = work.state.seal, work.banned | work.dismissed | {PeerId(item.peer) for item in departures}
    works = find_works(config, seal, work.commits, work.roster)
    return works, decide_admission(config, seal, work.commits, work.roster, gone, works)


def _step(services: Services, work: Work) -> tuple[Tensor, OptimizerState]:
    """Return x_{t+1} and the optimizer's memory."""
    assert work.aggregate is not None
    state = work.state
    if not work.is_update_due:
        return state.parameters, state.optimizer
    return services.workload.step(state.parameters, work.aggregate, state.optimizer)


def build_seal(
    config: RunConfig,
    work: Work,
    q: bytes,
    parameters: Tensor,
    optimizer: OptimizerState,
    banned: frozenset[PeerId],
    admission: Admission,
) -> Seal:
    """Return the tuple that the members sign in their next COMMIT."""
    assert work.confirms is not None
    is_full, root = work.round % config.state_interval == 0, compute_state_root(parameters, config.chunk_size)
    return Seal(
        run_id=config.run_id,
        round=work.round,
        attempt=work.attempt,
        transcript=work.confirms.digest,
        state=root,
        full_state=compute_full_state_root(root, optimizer, config.chunk_size) if is_full else b"",
        roster=tuple(sorted((*work.staying.members, *admission.promoted))),
        banned=tuple(sorted(banned)),
        previous=work.state.seal_digest,
        q=q,
        gradient_ms=work.state.seal.gradient_ms,
        candidates=admission.candidates,
        admitted=admission.admitted,
        ticket_bits=admission.ticket_bits,
    )
