"""
Who is guilty in an opened column: the one routine for live disputes, validators and audits.

Given the slices that a column's contributors committed to, the aggregate that its aggregator
committed to, and the reports, everything else follows by recomputation. Committed values that are not
finite count as zeros everywhere, so a NaN under a signed root is one more wrong value, and never spreads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from btard.identity import PeerId
from btard.robust import Directions, compute_centered_clip, compute_report, compute_residual, is_finite
from btard.rules.checks import compute_residual_limit, is_same_report
from btard.rules.config import RunConfig
from btard.rules.messages import Report
from btard.rules.parts import Part

ATTAINABLE = 4.0
"""How much worse than our own an aggregate may be that reaches no bound: honest machines round differently."""

NEAR = 1e22
"""Whatever is as near as this to values that count does count: it is less than what float32 can tell apart at 1e30."""


@dataclass(frozen=True)
class Column:
    """One opened part: slices by contributor, float32 of shape (part length,), and the aggregate."""

    part: Part
    slices: Mapping[PeerId, Tensor]
    aggregate: Tensor
    aggregate_norm: float


def read_committed(values: Tensor) -> Tensor:
    """Return committed values as they count: zeros if any is NaN, infinite or beyond 1e30 (attacks B5)."""
    return values if is_finite(values) else torch.zeros_like(values)


def compute_part_report(directions: Directions, part: Part, gradient: Tensor, aggregate: Tensor) -> Report:
    """Return the true report of a committed slice against an aggregate as it counts, both of the part's length."""
    if not part.elements:
        return Report((0.0,) * directions.count, 0.0)
    with np.errstate(all="ignore"):  # of what does not count: it is looked for only where it may be, and then done anew
        projections, norm = compute_report(directions, gradient, aggregate, part.tau, part.start)
    if not norm <= NEAR:
        projections, norm = compute_report(directions, read_committed(gradient), aggregate, part.tau, part.start)
    return Report(tuple(projections.tolist()), norm)


def find_liars(column: Column, directions: Directions, reports: Mapping[PeerId, Report]) -> tuple[PeerId, ...]:
    """Return the contributors whose report is not what their slice gives (beyond rounding)."""
    part, aggregate = column.part, read_committed(column.aggregate)
    return tuple(
        peer
        for peer, gradient in column.slices.items()
        if not is_same_report(reports[peer], compute_part_report(directions, part, gradient, aggregate), part.tau)
    )


def is_wrong_aggregate(config: RunConfig, column: Column) -> bool:
    """Return whether the aggregate is not the CenteredClip of all slices.

    Any vector within the residual bound is right; the aggregate itself is never compared. Nor is
    anybody guilty of not reaching what the same method does not reach on these slices: where half of
    the contributors are far away, the fixed point may be so long that float32 cannot hold it.
    """
    if not column.part.elements:
        return False
    slices = [read_committed(values) for values in column.slices.values()]
    residual = compute_residual(slices, read_committed(column.aggregate), column.part.tau)
    if residual <= compute_residual_limit(config, column.part, len(column.slices), column.aggregate_norm):
        return False
    attainable = compute_centered_clip(slices, column.part.tau, config.epsilon).residual
    return not residual <= ATTAINABLE * attainable
