"""Aggregation that a minority cannot steer, and the projections that expose a wrong aggregate (torch, no I/O)."""

from btard.robust.calibration import Calibration, calibrate, scale_to_part
from btard.robust.clip import (
    MAX_VALUE,
    Clipped,
    compute_centered_clip,
    compute_centered_clip_reference,
    compute_mean,
    compute_norm,
    compute_residual,
    compute_residual_bound,
    find_non_finite,
    is_finite,
)
from btard.robust.partition import Layout, compute_chunk_size, compute_parts
from btard.robust.projection import (
    PROJECTION_FACTOR,
    Directions,
    compute_norm_tolerance,
    compute_report,
    compute_report_tolerance,
    compute_reports,
    compute_sum_tolerance,
)

__all__ = [
    "MAX_VALUE",
    "PROJECTION_FACTOR",
    "Calibration",
    "Clipped",
    "Directions",
    "Layout",
    "calibrate",
    "compute_centered_clip",
    "compute_centered_clip_reference",
    "compute_chunk_size",
    "compute_mean",
    "compute_norm",
    "compute_norm_tolerance",
    "compute_parts",
    "compute_report",
    "compute_report_tolerance",
    "compute_reports",
    "compute_residual",
    "compute_residual_bound",
    "compute_sum_tolerance",
    "find_non_finite",
    "is_finite",
    "scale_to_part",
]
