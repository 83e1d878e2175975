"""Collecting the slices due to us: those of our own part, and those that we pass on for marked pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import trio

from btard.identity import PeerId
from btard.rules.messages import Unrelayed
from btard.rules.parts import Part
from btard.swarm.gather import PULL_SOURCES
from btard.swarm.hastening import ask_and_hasten
from btard.swarm.pulling import pull_slice
from btard.swarm.refetching import await_returning
from btard.swarm.relaying import compute_hop_bound, find_slice_errands
from btard.swarm.services import Services
from btard.swarm.state import Work


class Due(NamedTuple):
    """``owner``'s slice of ``part``, which ``source`` has to send us."""

    part: Part
    owner: PeerId
    source: PeerId


async def collect_slices(
    services: Services, work: Work, part: Part
) -> tuple[tuple[PeerId, ...], tuple[Unrelayed, ...]]:
    """Wait for every contributor's slice of our part, and for what we pass on; return what did not come, in order."""
    relays = work.relays
    contributors = work.contributors if part.elements else ()
    own = [Due(part, peer, relays.between(services.me, peer) or peer) for peer in contributors]
    errands = [
        Due(work.part_of(errand.recipient), errand.owner, errand.owner) for errand in find_slice_errands(services, work)
    ]
    direct = [due for due in own if due.source == due.owner] + errands
    relayed = [due for due in own if due.source != due.owner]
    overdue = set[Due]()  # what others wait for no longer, whether it comes yet or not

    async def wait() -> None:
        overdue.clear()
        await _collect(services, work, direct, services.deadlines.bulk_s)
        late = _find_lacking(services, work, errands)
        await _collect(services, work, relayed, compute_hop_bound(services))
        overdue.update(late)

    await services.exchange.wait_out(work, lambda: not _find_lacking(services, work, (*own, *errands)), wait)
    missing = sorted(due.owner for due in _find_lacking(services, work, own))
    failed = sorted((due.part.aggregator, due.owner) for due in {*_find_lacking(services, work, errands), *overdue})
    return tuple(missing), tuple(Unrelayed(*pair) for pair in failed)


async def _collect(services: Services, work: Work, dues: Sequence[Due], wait_s: float) -> None:
    """Wait for slices; a lost link is no crime, so ask for those that do not come."""
    if not dues or await services.exchange.wait_for(work, lambda: not _find_lacking(services, work, dues), wait_s):
        return

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            for due in _find_lacking(services, work, dues):
                sources = (due.source, *services.others(work)[:PULL_SOURCES])
                nursery.start_soon(pull_slice, services, work, due.part, due.owner, sources)

    def find_sources() -> set[PeerId]:
        return {due.source for due in _find_lacking(services, work, dues)}

    await ask_and_hasten(services, work, find_sources, ask)
    await await_returning(services, work, find_sources)


def _find_lacking(services: Services, work: Work, dues: Sequence[Due]) -> list[Due]:
    get = services.slices.get
    return [due for due in dues if get(work.round, work.root_of(due.owner), due.part.chunks) is None]
