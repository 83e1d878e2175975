"""
Complaints from publication to attestation: whoever withholds leaves, what stays undecided marks the pair.

Everybody publishes what a complaint asks of it, looks for itself what it holds, and says so; what
follows is a count over the agreed attestations. Nothing here knows who attacks.

How long all wait follows from the complaints, which all have agreed on: as long as an honest member may take for
what they ask of it and give it, with ``min_bandwidth`` in each direction. To settle one vector's worth of them in an
attempt, and leave the rest to the next ones, would bound each wait, but not their sum; it would cost a settlement
for each complainer, and one accused relay can have more than a vector to publish about a single part.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import compress

from btard.identity import PeerId
from btard.rules.complaints import (
    Complaint,
    compute_publication,
    find_attesters,
    find_unattested,
    find_undecided,
)
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.marks import compute_marks_digest
from btard.rules.messages import Attest, Phase, Publish
from btard.rules.validity import is_valid_attest
from btard.swarm.binding import bind_parts
from btard.swarm.exchange import NewAttempt
from btard.swarm.proving import Hearing, prove_attestations, prove_marks
from btard.swarm.pulling import compute_serving_bound, pull_part, pull_slice, pull_together, send_whole
from btard.swarm.refetching import await_returning
from btard.swarm.relaying import pass_on_part, pass_on_slice
from btard.swarm.services import Services
from btard.swarm.state import Work

Fetch = Callable[[Complaint, Sequence[PeerId]], Awaitable[None]]


async def settle_scatter_complaints(services: Services, work: Work, complaints: Sequence[Complaint]) -> None:
    """Settle complaints about slices; the attempt ends in any case, for its aggregates are incomplete.

    Raises:
        NewAttempt: always; whoever did not publish leaves, every other pair is marked.
    """

    def is_held(complaint: Complaint) -> bool:
        """Whether we hold it in one piece, as we would serve it."""
        chunks = work.parts[complaint.part].chunks
        return services.slices.find_piece(work.round, work.root_of(complaint.owner), chunks) is not None

    async def fetch(complaint: Complaint, sources: Sequence[PeerId]) -> None:
        await pull_slice(services, work, work.parts[complaint.part], complaint.owner, sources)

    services = services.carrying(compute_publication(complaints, work.parts, work.roster))
    asked = {(item.accused, work.root_of(item.owner), work.parts[item.part].chunks) for item in complaints}
    services.slices.expect(work.round, asked)
    services.slices.lend_longer(services.deadlines.patience_s)
    _publish_slices(services, work, complaints)
    hearing, unattested = await _hear(services, work, complaints, is_held, fetch, serial=0)
    mine = [(index, complaint) for index, complaint in enumerate(complaints) if complaint.complainer == services.me]
    pulls = [partial(fetch, complaint, find_attesters(hearing.answers, index)) for index, complaint in mine]
    await pull_together(services, work, pulls)
    await _conclude(services, work, complaints, hearing, unattested, services.deadlines.bulk)


async def settle_gather_complaints(services: Services, work: Work, complaints: Sequence[Complaint]) -> None:
    """Settle complaints about aggregates; the draw stands unless somebody leaves, and marks wait for the next round.

    Raises:
        NewAttempt: somebody did not publish a part.
    """
    hearing, unattested = await _hear_about_parts(services, work, complaints, serial=1)
    if unattested:
        await _conclude(services, work, complaints, hearing, unattested, services.deadlines.check)
    work.gathered = find_undecided(complaints, unattested)
    lacked = {item.part for index, item in enumerate(complaints) if not _is_held_by_all(work, hearing, index)}
    work.serving_s = compute_serving_bound(services, len(lacked))


async def settle_check_complaints(services: Services, work: Work, complaints: Sequence[Complaint]) -> None:
    """Settle complaints about aggregates that nobody gave back; the attempt ends in any case, for reports are missing.

    Raises:
        NewAttempt: always; whoever did not publish leaves, every other pair is marked.
    """
    hearing, unattested = await _hear_about_parts(services, work, complaints, serial=2)
    await _conclude(services, work, complaints, hearing, unattested, services.deadlines.check)


async def _hear_about_parts(
    services: Services, work: Work, complaints: Sequence[Complaint], *, serial: int
) -> tuple[Hearing, tuple[int, ...]]:
    """Have aggregates published; return the hearing and the complaints whose data was never published."""

    def is_held(complaint: Complaint) -> bool:
        part, root = work.parts[complaint.part], work.aggregate_root_of(complaint.owner)
        return services.parts.get(work.round, work.attempt, part, root) is not None

    async def fetch(complaint: Complaint, sources: Sequence[PeerId]) -> None:
        await pull_part(services, work, work.parts[complaint.part], sources)

    services = services.carrying(compute_publication(complaints, work.parts, work.roster))
    services.parts.lend_longer(services.deadlines.patience_s)
    _publish_parts(services, work, complaints)
    return await _hear(services, work, complaints, is_held, fetch, serial=serial)


def _is_held_by_all(work: Work, hearing: Hearing, index: int) -> bool:
    return len(find_attesters(hearing.answers, index)) == len(work.roster)


def _publish_slices(services: Services, work: Work, complaints: Sequence[Complaint]) -> None:
    """Send everyone what we are accused of keeping back, once we hold it: our own slices, or as a relay another's."""
    asked = {(item.part, item.owner) for item in complaints if item.accused == services.me}
    for index, owner in sorted(asked) if services.conduct.publishes_slice(work.round) else ():
        part, others = work.parts[index], services.others(work)
        if owner != services.me:
            pass_on_slice(services, work, owner, part, others)
        for peer in others if owner == services.me else ():
            send_whole(services, work, peer, part)


def _publish_parts(services: Services, work: Work, complaints: Sequence[Complaint]) -> None:
    """Send everyone what we are accused of keeping back, once we hold it: our aggregate, or as a relay another's."""
    asked = [item for item in complaints if item.accused == services.me]
    willing = {item.part for item in asked if services.conduct.sends_part(work.round, item.complainer)}
    for index in sorted(willing):
        pass_on_part(services, work, work.parts[index], services.others(work))


async def _hear(
    services: Services,
    work: Work,
    complaints: Sequence[Complaint],
    is_held: Callable[[Complaint], bool],
    fetch: Fetch,
    *,
    serial: int,
) -> tuple[Hearing, tuple[int, ...]]:
    """Return the hearing and the complaints whose data was never published."""
    deadlines, publish = services.deadlines, Publish(compute_marks_digest(work.marks))
    published = await services.exchange.run(
        work,
        Phase.PUBLISH,
        publish,
        wait_s=deadlines.check,
        serial=serial,
        is_valid=lambda message: message.payload == publish,
    )
    if not services.has_said(work, Phase.ATTEST, serial):
        await _await_publications(services, work, complaints, is_held, fetch)
    held = tuple(is_held(complaint) for complaint in complaints)
    if serial:  # aggregates
        await bind_parts(services, work, {work.parts[item.part] for item in compress(complaints, held)})
    attests = await services.exchange.run(
        work,
        Phase.ATTEST,
        Attest(held),
        wait_s=deadlines.bulk,
        serial=serial,
        is_valid=lambda message: is_valid_attest(message, len(complaints)),
    )
    asked = (work.aggregates, work.reveals, work.checks)[serial]
    assert asked is not None
    return Hearing(asked, published, attests), find_unattested(complaints, attests, work.roster)


async def _await_publications(
    services: Services,
    work: Work,
    complaints: Sequence[Complaint],
    is_held: Callable[[Complaint], bool],
    fetch: Fetch,
) -> None:
    """Wait for what complaints ask members to publish; what was sent may be lost with a link, so ask once.

    What we are to publish ourselves and lost in a restart, others may have.
    """
    await services.exchange.wait_for(work, lambda: all(map(is_held, complaints)), services.deadlines.bulk_s)
    lacking = {(item.part, item.owner, item.accused): item for item in complaints if not is_held(item)}
    mine = {services.me: services.others(work)}
    pulls = [partial(fetch, item, mine.get(item.accused, (item.accused,))) for item in lacking.values()]
    await pull_together(services, work, pulls)

    def find_accused() -> list[PeerId]:
        return [item.accused for item in complaints if not is_held(item)]

    await await_returning(services, work, find_accused)


async def _conclude(
    services: Services,
    work: Work,
    complaints: Sequence[Complaint],
    hearing: Hearing,
    unattested: Sequence[int],
    wait_s: float,
) -> None:
    """End the attempt: withholders leave, the other pairs are marked, and those that its gather had marked.

    Raises:
        NewAttempt: always.
    """
    marks = work.marks.with_pairs(work.gathered | find_undecided(complaints, unattested))
    await services.exchange.agree(work, wait_s, marks)
    culprits = {complaints[index].accused: index for index in reversed(unattested)}
    for peer in sorted(culprits):
        proof = prove_attestations(culprits[peer], work, hearing)
        services.record(work, peer, DepartureKind.REMOVAL, Cause.WITHHOLDING, proof)
    work.marks = marks
    raise NewAttempt(work.round, hearing.answers.digest, removed=tuple(sorted(culprits)))


async def part_with_overmarked(services: Services, work: Work) -> None:
    """Let those go who have more than f marked partners: none of them is honest (attacks B1).

    Raises:
        NewAttempt: somebody leaves.
    """
    tolerated = work.roster.tolerated(services.config.byzantine_bound)
    overmarked = work.marks.find_overmarked(work.roster, tolerated)
    if overmarked:
        agrees = await services.exchange.agree(work, services.deadlines.check, work.marks)
        for peer in overmarked:
            proof = prove_marks(work, agrees)
            services.record(work, peer, DepartureKind.REMOVAL, Cause.TOO_MANY_MARKS, proof)
        raise NewAttempt(work.round, agrees.digest, removed=overmarked)
