"""
Which words bind us to what data: a signed word binds its author only to what is on its disk.

COMMIT     we owe slices of our gradient to whoever aggregates, and to all if there is a complaint or a dispute
AGGREGATE  whoever relays for a marked pair answers for each slice that it does not call unrelayed
REVEAL     and for each aggregate that it does not call missing
ATTEST     whoever attests to hold an aggregate serves it: all count on that, and complain no more
CONFIRM    an aggregator that names a false report publishes the slice that shows it
DISPUTE_PUBLISH  an aggregator whose column is opened serves the slices that it does not lack of those who left

Here all that is on disk before the word is signed. Of others' data only the one that gave it to us need have it as
well, and it may be a cheat. Where no pair is marked, nobody complains and nobody is named none is written. A gradient
is written where it takes so long that others would miss us while it is computed again. Slices that an ATTEST names
are no such data: the attempt ends, and whoever lacks one gets it by a relay. The aggregate of our own part is on disk
too (``swarm/updates.py``).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from btard.identity import PeerId
from btard.net import BulkHandler
from btard.rules.disputes import Dispute, DisputeKind
from btard.rules.messages import Commit, Unrelayed
from btard.rules.parts import Part
from btard.swarm.bound_data import Bound, make_bound_gradient, make_bound_part, make_bound_slice
from btard.swarm.exhibits import find_subject
from btard.swarm.frames import Kind
from btard.swarm.relaying import find_part_errands, find_slice_errands
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work, as_bytes, commit_to

QUICK = 0.25
"""Of Δ: a gradient that takes no longer is computed again after a restart, and that of the round before as well."""


async def bind_gradient(services: Services, work: Work, gradient: Gradient, took_s: float) -> None:
    """Have our gradient on disk with our COMMIT, if it took long.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    if took_s > QUICK * services.config.delay_s:
        item = make_bound_gradient(work.round, gradient, services.slices.chunks)
        await _keep(services, work, [item], is_lasting=True)


def find_committed(services: Services, number: int, commit: Commit) -> Gradient | None:
    """Return the gradient that we committed to before a restart, if it is here again, also from others."""
    values = services.slices.get(number, commit.root, range(services.slices.chunks)) if commit.root else None
    return None if values is None else commit_to(values, services.config.chunk_size, overflow=commit.overflow)


async def bind_slice_errands(services: Services, work: Work, unrelayed: Collection[Unrelayed]) -> None:
    """Have on disk with our AGGREGATE the slices that we pass on, but for those that it calls unrelayed.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    lacked = {(item.recipient, item.owner) for item in unrelayed}
    errands = find_slice_errands(services, work)
    due = [item for item in errands if (item.recipient, item.owner) not in lacked]
    await _keep(services, work, _find_slices(services, work, [(it.owner, work.part_of(it.recipient)) for it in due]))


async def bind_part_errands(services: Services, work: Work) -> None:
    """Have on disk with our REVEAL the aggregates that we pass on, as far as we hold them: it calls the others missing.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    await bind_parts(services, work, {work.part_of(item.owner) for item in find_part_errands(services, work)})


async def bind_parts(services: Services, work: Work, parts: Collection[Part]) -> None:
    """Have others' aggregates on disk with our next message, as far as we hold them.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    others = sorted((part for part in parts if part.aggregator != services.me), key=lambda part: part.index)
    held = ((part, _find_aggregate(services, work, part)) for part in others)
    items = [make_bound_part(work.round, work.attempt, part.index, data) for part, data in held if data is not None]
    await _keep(services, work, items)


def _find_aggregate(services: Services, work: Work, part: Part) -> memoryview | None:
    values = services.parts.get(work.round, work.attempt, part, work.aggregate_root_of(part.aggregator))
    return None if values is None else as_bytes(values)


async def bind_inheritance(services: Services, work: Work, dispute: Dispute) -> None:
    """Have on disk with our DISPUTE_PUBLISH the slices of those who left, but for those that it says we lack.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    subject = find_subject(work, dispute)
    if dispute.kind is DisputeKind.COLUMN and dispute.accused == services.me and subject is not None:
        gone, mine = [peer for peer in subject.contributors if peer not in work.roster], subject.part_of(services.me)
        await _keep(services, work, _find_slices(services, subject, [(peer, mine) for peer in gone]))


async def bind_named(services: Services, work: Work, named: Iterable[PeerId]) -> None:
    """Have on disk with our CONFIRM the slices of those whose reports it calls false.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    mine = work.part_of(services.me)
    await _keep(services, work, _find_slices(services, work, [(peer, mine) for peer in named]))


def _find_slices(services: Services, work: Work, due: Iterable[tuple[PeerId, Part]]) -> list[Bound]:
    found = []
    for owner, part in due:
        piece = services.slices.find_piece(work.round, work.root_of(owner), part.chunks)
        if piece is not None and part.elements:
            found.append(make_bound_slice(work.round, work.root_of(owner), piece))
    return found


async def _keep(services: Services, work: Work, items: Sequence[Bound], *, is_lasting: bool = False) -> None:
    later = services.bound.keep(work.round, work.attempt, items, is_lasting=is_lasting)
    if later is not None:
        await services.exchange.attend(work, later)


async def recall_bound(services: Services) -> None:
    """Hold again, after a restart, what our words bind us to."""
    receivers: Mapping[Kind, BulkHandler] = {Kind.SLICE: services.slices, Kind.PART: services.parts}
    for item in await services.bound.load():
        receivers[item.kind].done(services.me, item.head, item.payload)
