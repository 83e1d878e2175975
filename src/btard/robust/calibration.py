"""
The constants of a run from honest gradients: the pure part of ``btard-peer calibrate``.

tau is the median distance of an honest slice from the mean of its column: about half of the honest
rows are shortened, which costs little (the fixed point stays unbiased for symmetric noise), while
colluders can shift a part by at most tau * b / (n - b), the smaller the better. delta is twice the
largest distance seen: with at least 64 slices an honest one exceeds it with p < 1e-3 for any tail
no heavier than a power law of index 4 (1/64 * 2^-4); Gaussian noise never does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from btard.errors import ConfigError
from btard.robust.clip import compute_mean, find_non_finite
from btard.robust.partition import Layout, compute_parts

Vector = NDArray[np.float64]

TAU_QUANTILE = 0.5
DELTA_MARGIN = 2.0
MIN_TOLERANCE = 1e-4
DEVIATION_MARGIN = 10.0
MIN_SAMPLES = 64
"""Slices without which the margin of delta would not mean p < 1e-3."""


@dataclass(frozen=True)
class Calibration:
    """Constants for a part of one chunk (``scale_to_part`` for others), and the relative recomputation tolerance."""

    tau: float
    delta: float
    tolerance: float


def scale_to_part(value: float, length: int, chunk_size: int) -> float:
    """Return tau or delta of a part of ``length`` elements: noise norms grow with the square root of the length."""
    return value * math.sqrt(length / chunk_size)


def calibrate(gradients: Sequence[Sequence[Tensor]], layout: Layout, members: int, deviation: float) -> Calibration:
    """Return the constants from honest gradients of several steps, each of several peers at the same parameters.

    Every roster size from more than half of ``members`` up is tried, because the parts are cut anew
    when members leave. ``deviation`` is the largest relative deviation seen across hardware.

    Raises:
        ConfigError: too few gradients, non-finite ones, or gradients that do not differ.
    """
    samples = [_compute_chunk_squares(rows, layout) for rows in gradients]
    distances = np.concatenate(
        [
            _compute_distances(squares, layout, size)
            for squares in samples
            for size in range(members // 2 + 1, members + 1)
        ]
        or [np.zeros(0)]
    )
    if sum(len(rows) for rows in gradients) * min(members, layout.chunks) < MIN_SAMPLES:
        raise ConfigError(f"calibration needs at least {MIN_SAMPLES} slices; take more steps or more peers")
    tau = float(np.quantile(distances, TAU_QUANTILE))
    if tau <= 0:
        raise ConfigError("the gradients of different peers are equal; calibrate with different minibatches per peer")
    return Calibration(
        tau=tau,
        delta=DELTA_MARGIN * float(distances.max()),
        tolerance=max(MIN_TOLERANCE, DEVIATION_MARGIN * deviation),
    )


def _compute_chunk_squares(rows: Sequence[Tensor], layout: Layout) -> Vector:
    """Return (peers, chunks) squared distances from the mean, freed of each peer's own share in that mean."""
    if len(rows) < 2 or any(row.numel() != layout.elements for row in rows):
        raise ConfigError(f"calibration needs at least two gradients of {layout.elements} elements per step")
    if find_non_finite(rows):
        raise ConfigError("a calibration gradient is not finite; lower the learning rate or check the task")
    starts = np.arange(0, layout.elements, layout.chunk_size)
    mean = compute_mean(rows).double()
    squares = [np.add.reduceat((row.detach().double() - mean).square_().numpy(), starts) for row in rows]
    return np.stack(squares) * (len(rows) / (len(rows) - 1))


def _compute_distances(squares: Vector, layout: Layout, members: int) -> Vector:
    """Return the distances of every non-empty part of every peer, scaled to one chunk's length."""
    parts = [part for part in compute_parts(layout.chunks, members) if part]
    spans = [layout.elements_of(part) for part in parts]
    scale = np.array([math.sqrt(layout.chunk_size / (span.stop - span.start)) for span in spans])
    sums = np.add.reduceat(squares, [part.start for part in parts], axis=1)
    distances: Vector = (np.sqrt(sums) * scale).reshape(-1)
    return distances
