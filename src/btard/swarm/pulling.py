"""Asking others for slices and parts, as long as an answer may take."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from btard.identity import PeerId
from btard.rules.parts import Part
from btard.swarm.services import Services
from btard.swarm.state import Work


def compute_pull_bound(services: Services) -> float:
    """Return the seconds that asking may take: sources are asked within Δ, the request takes Δ, then a transfer."""
    return services.deadlines.bulk_s + 2 * services.config.delay_s


def compute_serving_bound(services: Services, parts: int) -> float:
    """Return the seconds after which all have so many more parts, though one member may be the only one to serve them.

    Everyone asks for one at a time, and fewer than half lack it: a single source sends less than a vector at once,
    for no part is longer than two n-ths. Twice, for who has no link to it gets a part from those who have got it.
    """
    return 2 * parts * compute_pull_bound(services)


async def pull_slice(
    services: Services, subject: Work, part: Part, contributor: PeerId, sources: Sequence[PeerId]
) -> None:
    """Ask others for a contributor's slice of a part."""
    root = subject.root_of(contributor)
    others = [source for source in sources if source != services.me]
    await services.slices.pull(subject.round, root, part.chunks, others, compute_pull_bound(services))


async def pull_part(services: Services, work: Work, part: Part, sources: Sequence[PeerId]) -> None:
    """Ask others for the aggregate of a part."""
    root = work.aggregate_root_of(part.aggregator)
    others = [source for source in sources if source != services.me]
    await services.parts.pull(work.round, work.attempt, part, root, others, compute_pull_bound(services))


async def pull_together(services: Services, work: Work, pulls: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Ask for several things at once; whoever does not answer keeps nobody in an attempt that the others have left.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            for pull in pulls:
                nursery.start_soon(pull)

    await services.exchange.attend(work, ask)


def send_whole(services: Services, work: Work, peer: PeerId, part: Part) -> None:
    """Send one member our slice of a part, whole and with one proof, whatever it was sent before."""
    assert work.gradient is not None
    services.slices.send(work.round, work.gradient, peer, part.chunks, again=True)
