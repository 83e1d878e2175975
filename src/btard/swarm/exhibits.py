"""
Exhibits: the slices that a dispute asks for, published to all before anybody votes.

Who owes one sends it to everybody. All wait for them, ask around, and say with DISPUTE_PUBLISH which they lack.
What more than half hold somebody honest has, and serves to all who vote; what fewer hold was never published, so
its owner is silent to every honest member alike, also to one that was shown it later. An opened column is thus
judged by all that are honest, or somebody leaves: shown to a few, it would find no majority and cost nothing.
"""

from collections.abc import Collection, Sequence
from functools import partial

from btard.identity import PeerId
from btard.rules.disputes import Dispute, DisputeKind, find_attesters
from btard.rules.messages import DisputePublish, Transcript
from btard.rules.parts import Part
from btard.swarm.hastening import ask_and_hasten
from btard.swarm.pulling import compute_serving_bound, pull_slice, pull_together, send_whole
from btard.swarm.refetching import await_returning
from btard.swarm.services import Services
from btard.swarm.state import Work


def find_subject(work: Work, dispute: Dispute) -> Work | None:
    """The round that a dispute is about: this one, or the one before, which a newcomer has not seen."""
    return work if dispute.round == work.round else work.previous


def find_wanted(work: Work, dispute: Dispute) -> tuple[PeerId, ...]:
    """Whose slices of its part a dispute asks for, in order; nobody's about a gradient, or a round that we missed."""
    subject = find_subject(work, dispute)
    if subject is None or dispute.part is None or not subject.parts[dispute.part].elements:
        return ()
    return (dispute.accused,) if dispute.kind is DisputeKind.REPORT else subject.contributors


def publish_exhibits(services: Services, work: Work, dispute: Dispute) -> None:
    """Send everyone what a dispute asks of us: our own slice, or as aggregator the slices of those who left."""
    subject = find_subject(work, dispute)
    if dispute.part is None or subject is None:
        return
    part = subject.parts[dispute.part]
    if dispute.kind is DisputeKind.REPORT:
        if dispute.accuser == services.me:
            _forward(services, work, subject, part, dispute.accused)
        return
    if services.me in subject.contributors and subject.gradient is not None:
        for peer in services.others(work):
            send_whole(services, subject, peer, part)
    if part.aggregator == services.me:
        for contributor in subject.contributors:
            if contributor not in work.roster:
                _forward(services, work, subject, part, contributor)


def _forward(services: Services, work: Work, subject: Work, part: Part, contributor: PeerId) -> None:
    root = subject.root_of(contributor)
    for peer in services.others(work):
        services.slices.forward(subject.round, root, part.chunks, peer)


def find_lacking(services: Services, work: Work, dispute: Dispute) -> tuple[PeerId, ...]:
    """Whose slices we lack of those that a dispute asks for."""
    wanted, subject = find_wanted(work, dispute), find_subject(work, dispute)
    if not wanted or subject is None or dispute.part is None:
        return ()
    get, chunks = services.slices.get, subject.parts[dispute.part].chunks
    return tuple(peer for peer in wanted if get(subject.round, subject.root_of(peer), chunks) is None)


def find_debtors(work: Work, dispute: Dispute, owners: Collection[PeerId]) -> tuple[PeerId, ...]:
    """Who owes the slices of ``owners``: themselves, whoever named them, or the aggregator for those who left."""
    subject = find_subject(work, dispute)
    if not owners or subject is None or dispute.part is None:
        return ()
    debtors = {dispute.accuser} if dispute.kind is DisputeKind.REPORT else set(owners)
    debtors |= {subject.parts[dispute.part].aggregator for peer in owners if peer not in work.roster}
    return tuple(sorted(peer for peer in debtors if peer is not None and peer in work.roster))


def compute_publication_bound(services: Services, disputes: Sequence[Dispute]) -> float:
    """Return the seconds after which all that is published has come, entering up to 3Δ apart, or is lacking."""
    return len(disputes) * (services.deadlines.bulk + services.deadlines.messages_s)


async def await_exhibits(services: Services, work: Work, dispute: Dispute) -> tuple[PeerId, ...]:
    """Wait for what a dispute asks for, and ask around; return whose slices we lack.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    await services.exchange.wait_out(
        work,
        lambda: not find_lacking(services, work, dispute),
        lambda: _await_publication(services, work, dispute),
    )
    return find_lacking(services, work, dispute)


async def _await_publication(services: Services, work: Work, dispute: Dispute) -> None:
    """Wait until whoever came last to the dispute has published, ask, then wait for those that may be restarting."""

    def find_owing() -> tuple[PeerId, ...]:
        return find_debtors(work, dispute, find_lacking(services, work, dispute))

    deadlines = services.deadlines
    if await services.exchange.wait_for(work, lambda: not find_owing(), deadlines.bulk_s + deadlines.messages_s):
        return

    await ask_and_hasten(services, work, find_owing, partial(_ask_around, services, work, dispute))
    await await_returning(services, work, find_owing)


async def _ask_around(services: Services, work: Work, dispute: Dispute) -> None:
    subject, lacking, others = find_subject(work, dispute), find_lacking(services, work, dispute), services.others(work)
    if subject is None or dispute.part is None:
        return
    part = subject.parts[dispute.part]
    sources = {peer: tuple(dict.fromkeys((peer, *others))) for peer in lacking}
    await pull_together(
        services, work, [partial(pull_slice, services, subject, part, *item) for item in sources.items()]
    )


def compute_fetching_bound(services: Services, work: Work, published: Transcript) -> float:
    """Return the seconds after which all have what somebody said it lacks, from those who said that they hold it."""
    lacked = {
        (index, place)
        for message in published.messages
        if isinstance(message.payload, DisputePublish)
        for index, places in enumerate(message.payload.lacking)
        for place in places
    }
    return compute_serving_bound(services, min(len(lacked), len(work.roster)))  # no more than a column


async def fetch_exhibits(services: Services, work: Work, dispute: Dispute, published: Transcript, index: int) -> None:
    """Ask those who hold them for the slices that we lack, one after another: one member may have to serve us all.

    After a restart we lack the whole column, which the others have no need to ask for: it is asked for at once.
    """
    subject, wanted = find_subject(work, dispute), find_wanted(work, dispute)
    if subject is None or dispute.part is None:
        return
    part = subject.parts[dispute.part]
    if work.is_resumed:
        await _ask_around(services, work, dispute)
    for peer in (*find_lacking(services, work, dispute),) * 2:
        sources = find_attesters(published, index, wanted.index(peer))
        if peer in find_lacking(services, work, dispute):
            await pull_together(services, work, [partial(pull_slice, services, subject, part, peer, sources)])
    await await_returning(services, work, lambda: find_lacking(services, work, dispute))
