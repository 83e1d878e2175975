"""
Settling: disputes from publication to ruling (paper: Accuse, CheckAveraging).

Everybody publishes what the open question asks of it, looks for itself, and votes; the ruling is a
count over the agreed votes. Nothing here knows who attacks.
"""

from collections.abc import Sequence

from btard.identity import PeerId
from btard.rules.disputes import Dispute, DisputeKind, Ruling, find_unowed, find_withheld, settle_all
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.judgement import Column, find_liars, is_wrong_aggregate
from btard.rules.messages import DisputePublish, Opinion, Phase, Transcript, Vote
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.rules.validity import is_valid_dispute_publish, is_valid_vote
from btard.swarm.binding import bind_inheritance
from btard.swarm.events import DisputeOpened
from btard.swarm.exchange import NewAttempt
from btard.swarm.exhibits import (
    await_exhibits,
    compute_fetching_bound,
    compute_publication_bound,
    fetch_exhibits,
    find_debtors,
    find_lacking,
    find_subject,
    find_wanted,
    publish_exhibits,
)
from btard.swarm.proving import Hearing, prove_column, prove_votes
from btard.swarm.services import Services
from btard.swarm.state import Work, empty_part
from btard.swarm.validation import CONVICT, inspect_in_compute


async def hold_disputes(services: Services, work: Work, disputes: Sequence[Dispute], serial: int) -> Hearing:
    """Publish, look, vote, and return what was published and voted.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    for dispute in disputes:
        services.observe(DisputeOpened(dispute.kind, dispute.round, dispute.accused, dispute.accuser))
        publish_exhibits(services, work, dispute)
    is_said = services.has_said(work, Phase.DISPUTE_PUBLISH, serial)  # before a restart
    lacking = [await _collect(services, work, dispute) for dispute in (() if is_said else disputes)]
    published = await services.exchange.run(
        work,
        Phase.DISPUTE_PUBLISH,
        DisputePublish(tuple(lacking)),
        wait_s=compute_publication_bound(services, disputes),
        serial=serial,
        is_valid=lambda message: is_valid_dispute_publish(message, len(disputes)),
    )
    votes = await services.exchange.run(
        work,
        Phase.VOTE,
        Vote(await _form_opinions(services, work, disputes, published, serial)),
        wait_s=len(disputes) * services.deadlines.gradient + compute_fetching_bound(services, work, published),
        serial=serial,
        is_valid=lambda message: is_valid_vote(message, len(disputes)),
    )
    asked = work.confirms if serial else work.commits
    assert asked is not None
    return Hearing(asked, published, votes)


async def _collect(services: Services, work: Work, dispute: Dispute) -> tuple[int, ...]:
    """Wait for what a dispute asks for, and have on disk what we answer for; return the places that we call lacking.

    As the aggregator we call lacking also what we get only now of those who left: we did not publish it.
    """
    owed = find_lacking(services, work, dispute) if dispute.accused == services.me else ()
    unpublished = {peer for peer in owed if peer not in work.roster}
    lacking = unpublished.union(await await_exhibits(services, work, dispute))
    await bind_inheritance(services, work, dispute)
    return tuple(place for place, peer in enumerate(find_wanted(work, dispute)) if peer in lacking)


async def _form_opinions(
    services: Services, work: Work, disputes: Sequence[Dispute], published: Transcript, serial: int
) -> tuple[Opinion, ...]:
    """Return what we vote; nothing new where we have voted before a restart."""
    if services.has_said(work, Phase.VOTE, serial):
        return ()
    electorate = work.roster if serial else work.electorate
    return tuple(
        [await form_opinion(services, work, item, published, place, electorate) for place, item in enumerate(disputes)]
    )


async def rule_on(services: Services, work: Work, disputes: Sequence[Dispute], serial: int) -> tuple[Ruling, ...]:
    """Hold disputes; whoever loses leaves, and columns on which a false report was convicted are opened next.

    Raises:
        NewAttempt: somebody leaves, by these rulings or by a recovery meanwhile; or the disputes were the earlier
            ones of the attempt.
    """
    hearing = await hold_disputes(services, work, disputes, serial)
    rulings = settle_all(disputes, hearing.answers, work.roster if serial else work.electorate)
    banned = tuple(sorted({peer for ruling in rulings for peer in ruling.banned}))
    removed = tuple(sorted({peer for ruling in rulings for peer in ruling.removed} - set(banned)))
    decided = {item for index, item in enumerate(disputes) if is_conclusive(rulings[index], index, hearing, work)}
    if banned or removed or serial == 0 or len(decided) < len(disputes):
        await services.exchange.agree(work, services.deadlines.check)
        for index, ruling in enumerate(rulings):
            _record_ruling(services, work, ruling, index, hearing)
        work.settled |= decided
        work.reopen += sorted({part for ruling in rulings for part in ruling.parts} - set(work.reopen))
        raise NewAttempt(work.round, work.chain, banned=banned, removed=removed)
    return rulings


def is_conclusive(ruling: Ruling, index: int, hearing: Hearing, work: Work) -> bool:
    """Whether a dispute is over: somebody leaves by it, or more than half of the roster saw that nobody is guilty.

    Where members were down in the middle of it, a column may find neither. It is opened again in the next attempt.
    """
    votes = [m.payload.opinions[index] for m in hearing.answers.messages if isinstance(m.payload, Vote)]
    clean = sum(not (opinion.silent or opinion.guilty) for opinion in votes)
    return bool(ruling.banned or ruling.removed) or clean >= work.roster.majority


async def form_opinion(
    services: Services, work: Work, dispute: Dispute, published: Transcript, index: int, electorate: Roster
) -> Opinion:
    """Look at a dispute with our own eyes; whoever cannot says nothing, or who owes it what it lacks."""
    subject = find_subject(work, dispute)
    if subject is None:
        return Opinion((), (), ())
    if dispute.kind is DisputeKind.GRADIENT:
        finding = await inspect_in_compute(services, subject, dispute.accused, CONVICT)
        if finding.gradient is not None:
            services.slices.keep_own(subject.round, finding.gradient)
        return Opinion((dispute.accused,) if finding.guilty else (), (), finding.parts)
    assert dispute.part is not None
    wanted = find_wanted(work, dispute)
    places = find_withheld(published, index, len(wanted), electorate)
    withheld = {wanted[place] for place in places}
    unowed = find_unowed(dispute, published, index, wanted, withheld, work.roster)
    if not withheld - unowed:
        await fetch_exhibits(services, work, dispute, published, index)
    if lacking := withheld - unowed or set(find_lacking(services, work, dispute)) - unowed:
        return Opinion((), find_debtors(work, dispute, lacking), ())
    column = build_column(services, subject, subject.parts[dispute.part], [x for x in wanted if x not in unowed])
    return await services.compute.run(lambda: judge(services, subject, column, dispute, is_whole=not unowed))


def build_column(services: Services, subject: Work, part: Part, wanted: Sequence[PeerId]) -> Column:
    """Return the opened column: the slices of ``wanted`` and the aggregate that was committed to."""
    slices = {}
    for peer in wanted:
        values = (
            services.slices.get(subject.round, subject.root_of(peer), part.chunks) if part.elements else empty_part()
        )
        assert values is not None
        slices[peer] = values
    assert subject.aggregate is not None
    aggregate = subject.aggregate[part.start : part.stop]
    return Column(part, slices, aggregate, subject.aggregate_norms[part.index])


def judge(services: Services, subject: Work, column: Column, dispute: Dispute, *, is_whole: bool) -> Opinion:
    """Return who is guilty in an opened column: of its reports alone, if they are in dispute or not all slices here."""
    assert subject.directions is not None
    reports = {peer: subject.reports[peer][column.part.index] for peer in column.slices}
    guilty = set(find_liars(column, subject.directions, reports))
    if dispute.kind is DisputeKind.COLUMN and is_whole and is_wrong_aggregate(services.config, column):
        guilty.add(column.part.aggregator)
    return Opinion(tuple(sorted(guilty)), (), ())


_CAUSES = {
    (DisputeKind.GRADIENT, True): Cause.FALSE_GRADIENT,
    (DisputeKind.GRADIENT, False): Cause.FALSE_ACCUSATION,
    (DisputeKind.REPORT, True): Cause.FALSE_REPORT,
    (DisputeKind.REPORT, False): Cause.FALSE_NAMING,
}


def name_cause(dispute: Dispute, peer: PeerId, false_parts: Sequence[int]) -> Cause:
    """Return the cause of a ban by ruling."""
    if dispute.kind is DisputeKind.COLUMN:
        return Cause.WRONG_AGGREGATE if peer == dispute.accused else Cause.FALSE_REPORT
    if dispute.kind is DisputeKind.GRADIENT and peer == dispute.accused and false_parts:
        return Cause.FALSE_REPORT
    return _CAUSES[dispute.kind, peer == dispute.accused]


def _record_ruling(services: Services, work: Work, ruling: Ruling, index: int, hearing: Hearing) -> None:
    dispute = ruling.dispute
    by_majority = prove_votes(work, dispute, index, hearing)
    for peer in ruling.banned:
        if peer in work.banned:
            continue  # convicted by an earlier dispute about the same lie
        cause = name_cause(dispute, peer, ruling.parts)
        if cause is Cause.WRONG_AGGREGATE and _is_right_as_we_see(services, work, dispute):
            cause = Cause.FALSE_REPORT  # an aggregator that lied about its own slice
        by_column = cause in {Cause.FALSE_REPORT, Cause.WRONG_AGGREGATE} and dispute.part is not None
        subject = find_subject(work, dispute) if by_column else None
        own = prove_column(services, subject, dispute) if subject else None
        proof, blobs = own or (by_majority, {})
        services.record(work, peer, DepartureKind.BAN, cause, proof, blobs)
    for peer in ruling.removed:
        services.record(work, peer, DepartureKind.REMOVAL, Cause.WITHHOLDING, by_majority)


def _is_right_as_we_see(services: Services, work: Work, dispute: Dispute) -> bool:
    """Whether we hold the whole opened column and its aggregate is right."""
    subject = find_subject(work, dispute)
    if subject is None:
        return False
    assert dispute.part is not None
    part = subject.parts[dispute.part]
    roots = map(subject.root_of, subject.contributors)
    if any(services.slices.get(subject.round, root, part.chunks) is None for root in roots):
        return False
    return not is_wrong_aggregate(services.config, build_column(services, subject, part, subject.contributors))
