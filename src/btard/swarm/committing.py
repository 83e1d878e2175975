"""COMMIT: what a member stands for this round, before anyone has seen a gradient (Algorithm 2, steps 1 and 2)."""

from collections.abc import Callable

import trio

from btard.rules.messages import Commit, Phase, SignedMessage, Verdict
from btard.rules.validity import is_valid_commit
from btard.swarm.aggregation import scatter
from btard.swarm.binding import bind_gradient
from btard.swarm.catching_up import recall_committed
from btard.swarm.exchange import compute_opening_chain
from btard.swarm.refetching import restore_gradient
from btard.swarm.services import Services
from btard.swarm.state import Work
from btard.swarm.validation import ACCUSE, compute_own_gradient, inspect_in_compute
from btard.wire import sign_seal


async def commit(services: Services, work: Work, *, is_closing: bool = False) -> None:
    """Commit to our gradient, or as a validator to our verdicts on the previous round (Algorithm 2, steps 1 and 2)."""
    if work.commits is None and services.me in work.state.newcomers:
        work.commits = await services.exchange.listen(
            work, Phase.COMMIT, wait_s=services.deadlines.check, is_valid=_make_judge(work, is_closing=False)
        )
    elif work.commits is None:
        payload = await _prepare_commit(services, work, is_closing=is_closing)
        if work.gradient is not None:
            scatter(services, work)
        work.commits = await services.exchange.run(
            work,
            Phase.COMMIT,
            payload,
            wait_s=services.deadlines.commit(work.round),
            is_valid=_make_judge(work, is_closing=is_closing),
        )
    work.chain = compute_opening_chain(work)


def arrive(services: Services, work: Work, *, is_closing: bool) -> None:
    """Be in COMMIT before we have links or a gradient: whoever is there takes part in recoveries."""
    services.exchange.arrive(work, Phase.COMMIT, _make_judge(work, is_closing=is_closing))


def _make_judge(work: Work, *, is_closing: bool) -> Callable[[SignedMessage], bool]:
    return lambda message: is_valid_commit(message, work.validators, is_closing=is_closing)


async def _prepare_commit(services: Services, work: Work, *, is_closing: bool) -> Commit:
    said = services.broadcast.find_said(work.stage(Phase.COMMIT))
    if isinstance(said, Commit):
        return await _restore_commit(services, work, said)
    if services.me in work.validators:
        work.verdicts = work.verdicts or await _validate(services, work)
    elif not (is_closing or services.is_leaving(work)) and work.gradient is None:
        await _commit_to_gradient(services, work)
    own = work.gradient
    return Commit(
        root=own.tree.root if own else b"",
        overflow=bool(own and own.overflow),
        verdicts=work.verdicts or (),
        state=work.state.seal.state,
        seal=sign_seal(services.identity, work.state.seal),
        goodbye=is_closing or services.is_leaving(work),
        quotes=services.reception.quote(work.state),
    )


async def _restore_commit(services: Services, work: Work, said: Commit) -> Commit:
    """Stand for what we had committed to before a restart: the same verdicts, the same gradient."""
    work.verdicts = said.verdicts if services.me in work.validators else None
    if said.root and work.gradient is None:
        work.gradient = await restore_gradient(services, work, await recall_committed(services, work, said), said)
        services.slices.keep_own(work.round, work.gradient)
    return said


async def _commit_to_gradient(services: Services, work: Work) -> None:
    """Compute g_i from (x_t, xi_i^t) and its Merkle tree; on disk with our COMMIT if that took long."""
    started = trio.current_time()
    gradient = await compute_own_gradient(services, work)
    await bind_gradient(services, work, gradient, trio.current_time() - started)
    work.gradient = gradient
    services.slices.keep_own(work.round, gradient)


async def _validate(services: Services, work: Work) -> tuple[Verdict, ...]:
    """Redo the gradients of our targets of the previous round (Verification 3)."""
    previous = work.previous
    assert previous is not None
    verdicts = []
    for pair in work.state.assignments:
        if pair.validator == services.me:
            finding = await inspect_in_compute(services, previous, pair.target, ACCUSE)
            guilty = services.conduct.verdict(previous.round, pair.target, finding.guilty)
            verdicts.append(Verdict(pair.target, guilty))
    return tuple(verdicts)
