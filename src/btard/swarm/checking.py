"""CHECK and CONFIRM, and what their transcripts prove: Verifications 1 and 2, false reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from btard.identity import PeerId
from btard.robust import compute_reports
from btard.rules.charges import name_charges
from btard.rules.checks import find_false_reports, find_loud_contributors, find_part_to_open
from btard.rules.complaints import find_check_complaints
from btard.rules.disputes import Dispute, DisputeKind, find_namings
from btard.rules.draws import commit_to_nonce, derive_nonce
from btard.rules.messages import Check, Confirm, Phase, Report, Transcript
from btard.rules.parts import Part
from btard.rules.validity import is_valid_check, is_valid_confirm
from btard.swarm.aggregation import ban_broken_reveals, read_column
from btard.swarm.binding import bind_named
from btard.swarm.charging import answer_charges, find_open_charges
from btard.swarm.complaining import settle_check_complaints
from btard.swarm.services import Services
from btard.swarm.settling import rule_on
from btard.swarm.state import Work
from btard.swarm.validation import compute_part_reports


async def check(services: Services, work: Work) -> None:
    """Report on every part: projections of the clipped difference, and its norm (Verifications 1 and 2).

    Whoever lacks parts says which instead, and the attempt ends.

    Raises:
        NewAttempt: somebody lacks parts.
    """
    keep_update(services, work)
    reports = () if work.lacking else await _report(services, work)
    if services.updates.is_under_way(work.round):
        await services.exchange.attend(work, partial(services.updates.written, work.round))
    slot, contributors = services.slot(work, Phase.CONFIRM), work.contributors
    work.checks = await services.exchange.run(
        work,
        Phase.CHECK,
        Check(reports, commit_to_nonce(slot, derive_nonce(services.nonce_secret, slot)), work.lacking),
        wait_s=services.deadlines.bulk + work.serving_s,
        is_valid=lambda message: is_valid_check(message, contributors, work.parts, services.config.projections),
    )
    complaints = find_check_complaints(work.checks, work.parts, work.relays)
    if complaints:
        await settle_check_complaints(services, work, complaints)


def keep_update(services: Services, work: Work) -> None:
    """Write ĝ down before we say that we have it, as we shall after a restart; a large one beside our reports."""
    if work.aggregate is None:
        return
    later = services.updates.keep(work.round, work.aggregate, is_applied=work.is_update_due)
    if later is not None:
        services.spawn(later)


async def _report(services: Services, work: Work) -> tuple[Report, ...]:
    """Return what we report, and keep what others should report on our own part."""
    mine = work.part_of(services.me)
    rows = read_column(services, work) if mine.elements and work.contributors else []
    work.column_reports, reports = await services.compute.run(
        lambda: (_report_on_column(work, mine, rows), _report_on_all_parts(services, work))
    )
    await services.conduct.found(work.round, work.attempt, mine, work.column_reports)
    return await services.conduct.reports(work.round, work.attempt, work.parts, reports) if reports else ()


def _report_on_all_parts(services: Services, work: Work) -> tuple[Report, ...]:
    """Return the true reports of our own gradient, one for every part; none if it does not count."""
    own = work.gradient
    return () if own is None or services.me not in work.contributors else compute_part_reports(work, own)


def _report_on_column(work: Work, part: Part, rows: Sequence[Tensor]) -> dict[PeerId, Report]:
    """Return the true reports of all contributors on our own part, from their slices."""
    if not rows:
        return {}
    assert work.directions is not None and work.aggregate is not None
    if len(rows) < len(work.contributors):
        return {}  # a restart lost some, and nobody gives them back: we name nobody
    aggregate = work.aggregate[part.start : part.stop]
    projections, norms = compute_reports(work.directions, rows, aggregate, part.tau, part.start)
    return {
        peer: Report(tuple(map(float, values)), float(norm))
        for peer, values, norm in zip(work.contributors, projections, norms, strict=True)
    }


async def confirm(services: Services, work: Work) -> Transcript:
    """Toss the coin q; as aggregators, name the reports on our part that are false; answer charges."""
    assert work.checks is not None
    mine = work.part_of(services.me)
    false = tuple(p for p in find_false_reports(work.reports, work.column_reports, mine) if p != services.me)
    named = services.conduct.namings(work.round, false, work.contributors)
    nonce = derive_nonce(services.nonce_secret, services.slot(work, Phase.CONFIRM))
    charges = find_open_charges(work)
    answers = await answer_charges(services, work, charges)
    await bind_named(services, work, named)
    contributors, names = work.contributors, name_charges(charges)
    confirms = await services.exchange.run(
        work,
        Phase.CONFIRM,
        Confirm(nonce, tuple(sorted(named)), answers),
        wait_s=services.deadlines.check + len(charges) * services.deadlines.compute_s,
        is_valid=lambda message: is_valid_confirm(message, contributors, names),
    )
    work.confirms = confirms
    await ban_broken_reveals(services, work, work.checks, confirms)
    return confirms


@dataclass(frozen=True)
class Verified:
    """A round that stands: its last transcript, the parts not to be opened again until a round, who was loud."""

    confirms: Transcript
    exempt: Mapping[int, int]
    loud: tuple[PeerId, ...] = ()


async def verify(services: Services, work: Work, confirms: Transcript) -> Verified:
    """Settle named false reports, then Verification 1, then Verification 2: at most one column a round.

    Raises:
        NewAttempt: somebody was convicted. A naming always ends so, for it costs the namer or the named its place.
    """
    namings = find_namings(confirms, work.parts, work.contributors, work.round)
    if namings:
        await rule_on(services, work, namings, serial=1)
    exempt = {part: until for part, until in work.state.exempt.items() if until >= work.round}
    assert work.checks is not None
    tolerated = work.roster.tolerated(services.config.byzantine_bound)
    opened = find_part_to_open(
        services.config, work.parts, work.checks, work.contributors, work.aggregate_norms, tolerated, tuple(exempt)
    )
    if opened is None:
        return Verified(confirms, exempt)
    column = Dispute(DisputeKind.COLUMN, work.round, work.parts[opened].aggregator, part=opened)
    await rule_on(services, work, [column], serial=1)
    loud = find_loud_contributors(work.reports, work.parts[opened])
    return Verified(confirms, {**exempt, opened: work.round + services.config.exemption}, loud)
