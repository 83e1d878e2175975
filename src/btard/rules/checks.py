"""
Verifications 1 to 3: what the reports of a round prove (paper, Algorithm 1; attacks A1, B3, B4, B7).

Rules of this file

1. A check reads agreed reports and the verifier's own recomputation, never who asks.
2. Sums are exact (math.fsum), so every honest peer opens the same column.
3. Tolerances come from the run's configuration or from the verifier's own values, never from the
   accused's claims; the aggregate's claimed norm only chooses within a cap of 0.01 tau.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from btard.identity import PeerId
from btard.robust import (
    PROJECTION_FACTOR,
    compute_norm_tolerance,
    compute_report_tolerance,
    compute_residual_bound,
    compute_sum_tolerance,
)
from btard.rules.config import RunConfig
from btard.rules.messages import Report, Transcript
from btard.rules.parts import Part

MAX_REPORT = 1e100
"""Beyond anything that finite gradients give, and small enough that no sum of reports overflows."""

Reports = Mapping[PeerId, tuple[Report, ...]]


def read_reports(checks: Transcript, contributors: Sequence[PeerId]) -> Reports:
    """Return the reports of the contributors, by reporter."""
    return {peer: checks[peer].payload.reports for peer in contributors}  # type: ignore[union-attr]


def is_well_formed(reports: Sequence[Report], parts: int, projections: int) -> bool:
    """Return whether a contributor reported k projections and a norm for every part, none of them absurd or NaN."""
    return len(reports) == parts and all(
        len(report.projections) == projections
        and math.hypot(*report.projections) <= MAX_REPORT
        and 0 <= report.norm <= MAX_REPORT
        for report in reports
    )


def is_same_report(claimed: Report, own: Report, tau: float, slack: float = 1.0) -> bool:
    """Return whether a claim agrees with the recomputation from the same bits, up to rounding."""
    return claimed == own or is_near_report(claimed, own, tau, 0.0, slack)


def is_near_report(claimed: Report, own: Report, tau: float, deviation: float, slack: float = 1.0) -> bool:
    """Return whether a claim agrees with a recomputation on other hardware.

    ``deviation`` bounds the norm of the difference of the two gradients on this part. Clipping is
    1-Lipschitz, so the projections differ by at most PROJECTION_FACTOR times as much; rounding comes on top.
    """
    norm_bound = deviation + compute_norm_tolerance(own.norm)
    projection_bound = PROJECTION_FACTOR * deviation + compute_report_tolerance(own.norm, tau)
    return _is_within(claimed, own, slack * norm_bound, slack * projection_bound)


def _is_within(claimed: Report, own: Report, norm_bound: float, projection_bound: float) -> bool:
    return abs(claimed.norm - own.norm) <= norm_bound and all(
        abs(theirs - ours) <= projection_bound
        for theirs, ours in zip(claimed.projections, own.projections, strict=True)
    )


def find_false_reports(reports: Reports, own: Mapping[PeerId, Report], part: Part) -> tuple[PeerId, ...]:
    """Return the contributors whose report on my part is not what their own slice gives (an aggregator's check)."""
    return tuple(
        peer for peer, report in own.items() if not is_same_report(reports[peer][part.index], report, part.tau, 2.0)
    )


def find_part_to_open(
    config: RunConfig,
    parts: Sequence[Part],
    checks: Transcript,
    contributors: Sequence[PeerId],
    aggregate_norms: Sequence[float],
    tolerated: int,
    exempt: Sequence[int],
) -> int | None:
    """Return the part that Verification 1, else Verification 2, calls for, if any."""
    reports = read_reports(checks, contributors)
    unbalanced = find_unbalanced_part(config, parts, reports, aggregate_norms)
    return find_suspicious_part(parts, reports, tolerated, exempt) if unbalanced is None else unbalanced


def find_unbalanced_part(
    config: RunConfig, parts: Sequence[Part], reports: Reports, aggregate_norms: Sequence[float]
) -> int | None:
    """Verification 1: return the lowest part whose projections do not sum to zero, if any.

    At the fixed point of CenteredClip the clipped differences cancel, so |sum_i s_i^j| stays
    within the tolerance of the stop rule for every honest aggregate.
    """
    for part in parts:
        tolerance = _sum_tolerance(config, part, len(reports), aggregate_norms[part.index])
        columns = zip(*(report[part.index].projections for report in reports.values()), strict=True)
        if any(abs(math.fsum(column)) > tolerance for column in columns):
            return part.index
    return None


def _sum_tolerance(config: RunConfig, part: Part, rows: int, aggregate_norm: float) -> float:
    bound = compute_residual_bound(aggregate_norm, rows, part.tau, config.epsilon)
    return compute_sum_tolerance(bound, part.tau, rows)


def compute_residual_limit(config: RunConfig, part: Part, rows: int, aggregate_norm: float) -> float:
    """Return the residual above which an aggregate is wrong: what Verification 1 tolerates in any direction."""
    return _sum_tolerance(config, part, rows, aggregate_norm)


def find_loud_contributors(reports: Reports, part: Part) -> tuple[PeerId, ...]:
    """Return who reports a norm above the bound of this part."""
    return tuple(peer for peer, report in reports.items() if report[part.index].norm > part.delta)


def find_suspicious_part(
    parts: Sequence[Part], reports: Reports, tolerated: int, exempt: Sequence[int] = ()
) -> int | None:
    """Verification 2: return the lowest part to open because of its reports, if any.

    It is opened if at least C - f contributors report a norm above its bound, or if someone
    reports a projection beyond what its own norm allows (honest: probability below 2·exp(-40)).
    """
    for part in parts:
        if part.index in exempt or not part.elements:
            continue
        loud = len(find_loud_contributors(reports, part))
        if loud >= max(1, len(reports) - tolerated) or has_impossible_projection(reports, part):
            return part.index
    return None


def has_impossible_projection(reports: Reports, part: Part) -> bool:
    """Return whether a reported projection is larger than nine times the clipped norm beside it."""
    mine = (report[part.index] for report in reports.values())
    return any(
        max(map(abs, report.projections))
        > PROJECTION_FACTOR * min(report.norm, part.tau) * (1 + 1e-9) + 1e-12 * part.tau
        for report in mine
    )


@dataclass(frozen=True)
class Recomputation:
    """What a verifier finds when it redoes a target's gradient: its root, reports, and norms per part."""

    root: bytes
    overflow: bool
    reports: tuple[Report, ...]
    part_norms: tuple[float, ...]


def find_false_parts(
    config: RunConfig, parts: Sequence[Part], claimed: Sequence[Report], own: Recomputation, root: bytes, slack: float
) -> tuple[int, ...]:
    """Verification 3: return the parts on which a target's reports contradict the recomputation.

    Another root means other hardware or a lie: projections and norms must agree within the run's
    tolerance. Validators accuse beyond a ``slack`` of 2 times it, voters convict beyond 1, so an
    honest accuser never loses. A voter whose root is the same has the same bits and allows rounding
    only; a validator does not, because other voters may not have these bits.
    """
    whole = math.sqrt(math.fsum(norm * norm for norm in own.part_norms))
    relative = 0.0 if root == own.root and slack <= 1.0 else config.tolerance
    return tuple(
        part.index
        for part in parts
        if not is_near_report(
            claimed[part.index],
            own.reports[part.index],
            part.tau,
            relative * (own.part_norms[part.index] + whole * math.sqrt(part.elements / config.elements)),
            slack,
        )
    )
