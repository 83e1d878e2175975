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
from btard.rules.merkle import compute_root
from btard.rules.messages import Commit, Phase
from btard.swarm.events import GradientDiffers
from btard.swarm.pulling import pull_part, pull_slice, pull_together
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work, as_bytes, commit_to

log = structlog.get_logger(__name__)


async def await_returning(
    services: Services, work: Work, find_lacking: Callable[[], Collection[PeerId]], phase: Phase, serial: int = 0
) -> None:
    """Wait 4Δ more for data of members whose link was lost: they may be restarting, and send again when they are back.

    Their messages are waited for as long. Whoever was here all the time gets no more time. After a restart of our own
    all may be restarting, so we wait until somebody honest has gone on to ``phase`` without that data, or a recovery
    was called: those who miss us are not restarting.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    exchange, deadlines = services.exchange, services.deadlines
    if not any(map(services.broadcast.was_away, find_lacking())):
        return
    if await exchange.wait_for(work, lambda: not find_lacking(), deadlines.messages_s):
        return

    def is_over() -> bool:
        is_missed = services.broadcast.place.serial > 0
        return not find_lacking() or is_missed or services.have_gone_on(work, phase, serial)

    await exchange.wait_for(work, is_over, deadlines.warm_up_s)


def has_been_reduced(services: Services, work: Work) -> bool:
    """Whether we said AGGREGATE before a restart, and nobody needs to wait for our part any more.

    We gave it to the others before we said REVEAL; where one of them settles complaints, they may do without it. Nobody
    honest does before we have said AGGREGATE.
    """
    publications = services.broadcast.board.of(work.stage(Phase.PUBLISH))
    is_gathered = services.has_said(work, Phase.REVEAL) or any(peer in work.roster for peer in publications)
    return is_gathered and services.has_said(work, Phase.AGGREGATE)


async def refetch_slices(services: Services, work: Work) -> None:
    """Get the slices of our part again, as far as they can be had; contributors keep serving their own.

    Where we have said what we made of them, and the others do not wait for it, they are asked for beside the round.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    part = work.part_of(services.me)
    if not work.is_resumed or not part.elements:
        return

    def lacking() -> tuple[PeerId, ...]:
        get = services.slices.get
        return tuple(p for p in work.contributors if get(work.round, work.root_of(p), part.chunks) is None)

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            for peer in lacking():
                nursery.start_soon(pull_slice, services, work, part, peer, (peer, *services.others(work)))

    if has_been_reduced(services, work):
        services.spawn(ask)
        return
    await _ask_until(services, work, lambda: not lacking(), ask)


async def refetch_parts(services: Services, work: Work) -> None:
    """Get all aggregates of the attempt again, our own too should we reduce to another one than we signed.

    Where we have said REVEAL they are asked for beside the round.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    if not work.is_resumed:
        return
    root_of, mine = work.aggregate_root_of, work.part_of(services.me)
    own = services.parts.get(work.round, work.attempt, mine, root_of(services.me))
    if own is not None and compute_root(as_bytes(own), 4 * services.config.chunk_size) != root_of(services.me):
        services.parts.drop_own(work.round, work.attempt, mine)

    def lacking() -> list[int]:
        get = services.parts.get
        return [
            p.index
            for p in work.parts
            if p.elements and get(work.round, work.attempt, p, root := root_of(p.aggregator)) is None and root
        ]

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            for part in (work.parts[index] for index in lacking()):
                nursery.start_soon(pull_part, services, work, part, (part.aggregator, *services.others(work)))

    if services.has_said(work, Phase.REVEAL):
        services.spawn(ask)
        return
    await _ask_until(services, work, lambda: not lacking(), ask)


async def _ask_until(
    services: Services, work: Work, is_done: Callable[[], bool], ask: Callable[[], Awaitable[None]]
) -> None:
    """Ask again and again: whoever we ask may be restarting as well; at most a transfer and 4Δ longer than others."""
    with trio.move_on_after(services.deadlines.bulk_s + 4 * services.config.delay_s):
        while not is_done():
            await services.exchange.attend(work, ask)
            await services.exchange.wait_for(work, is_done, services.config.delay_s / 2)


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
