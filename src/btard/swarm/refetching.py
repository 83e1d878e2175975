"""
What a restart lost: slices and aggregates that were in memory are asked for again before anybody is blamed.

Everything here does nothing unless this process was restarted in the middle of the round.
"""

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog
import torch
import trio

from btard.errors import Removed
from btard.identity import PeerId
from btard.rules.messages import Commit
from btard.swarm.events import GradientDiffers
from btard.swarm.pulling import compute_pull_bound, pull_together
from btard.swarm.relaying import find_slice_errands
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work, commit_to

log = structlog.get_logger(__name__)


async def await_returning(services: Services, work: Work, find_lacking: Callable[[], Collection[PeerId]]) -> None:
    """Wait 8Δ more for data of members whose link was lost: they may be restarting, and send again when they are back.

    Whoever was here all the time gets no more time. After a restart of our own all may be restarting, so we wait until
    a recovery of the attempt has ended. Until one has, whoever is behind is excused; from then on nobody is, so whoever
    may be behind by the time of its own restart waits for nobody: all links seem to it to have been lost.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    exchange, deadlines, place = services.exchange, services.deadlines, services.broadcast.place
    if not any(map(services.broadcast.was_away, find_lacking())):
        return

    def is_enough() -> bool:
        return not find_lacking() or (place.is_behind and place.serial > 0)

    if not await exchange.wait_for(work, is_enough, deadlines.returning_s):
        await exchange.wait_for(work, lambda: not find_lacking() or place.serial > 0, deadlines.warm_up_s)


def refetch_slices(services: Services, work: Work) -> None:
    """Ask at once, beside the round, for what was sent to us before a restart: slices of our part, and to pass on."""
    if not work.is_resumed:
        return
    mine, slices = work.part_of(services.me), services.slices
    dues = [(peer, mine) for peer in work.contributors if mine.elements]
    dues += [(errand.owner, work.part_of(errand.recipient)) for errand in find_slice_errands(services, work)]
    for owner, part in dues:
        what = work.round, work.root_of(owner), part.chunks
        _refetch(services, work, owner, partial(slices.get, *what), partial(slices.pull, *what))


def refetch_parts(services: Services, work: Work) -> None:
    """Ask at once, beside the round, for aggregates that were sent to us before a restart; ours too if it is lost."""
    for part in work.parts if work.is_resumed else ():
        parts, root = services.parts, work.aggregate_root_of(part.aggregator)
        what = work.round, work.attempt, part, root
        if part.elements and root:
            _refetch(services, work, part.aggregator, partial(parts.get, *what), partial(parts.pull, *what))


def _refetch(
    services: Services, work: Work, owner: PeerId, get: Callable[[], object], pull: Callable[..., Awaitable[object]]
) -> None:
    sources = [peer for peer in dict.fromkeys((owner, *services.others(work))) if peer != services.me]
    services.spawn(_ask_until_held, services, get, partial(pull, sources, compute_pull_bound(services)))


async def _ask_until_held(services: Services, get: Callable[[], object], pull: Callable[[], Awaitable[object]]) -> None:
    """Ask again and again, for a transfer and 8Δ: whoever we ask may be restarting as well."""
    with trio.move_on_after(services.deadlines.bulk_s + services.deadlines.returning_s):
        while get() is None:
            await pull()
            await trio.sleep(services.config.delay_s / 2)


async def restore_gradient(services: Services, work: Work, own: Gradient, commit: Commit) -> Gradient:
    """Return the gradient that we committed to before the restart: computed again, or given back by the aggregators.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
        Removed: neither is possible; whatever we said about another one would be false.
    """
    if own.tree.root == commit.root:
        return own
    log.error("our gradient differs from the one that we committed to before the restart", round=work.round)
    restored = await _collect_own(services, work, commit)
    services.observe(GradientDiffers(work.round, restored is not None))
    if restored is None:
        raise Removed(
            f"after the restart our gradient of round {work.round} is not the one that this peer had committed to, "
            "and nobody gives that back: the task is not deterministic here, and the others go on without this peer"
        )
    return restored


async def _collect_own(services: Services, work: Work, commit: Commit) -> Gradient | None:
    """Ask every aggregator for the slice that we sent it, and put the gradient together."""
    slices, timeout_s = services.slices, services.deadlines.bulk_s
    others = services.others(work)
    pulls = [
        partial(slices.pull, work.round, commit.root, part.chunks, (part.aggregator, *others), timeout_s)
        for part in work.parts
        if part.elements
    ]
    await pull_together(services, work, pulls)
    held = [slices.get(work.round, commit.root, part.chunks) for part in work.parts]
    if any(values is None for values in held):
        return None
    ordered = sorted(zip(work.parts, held, strict=True), key=lambda pair: pair[0].start)
    values = torch.cat([values for _, values in ordered if values is not None])
    return commit_to(values, services.config.chunk_size, overflow=commit.overflow)
