"""
CenteredClip run to its fixed point: the x with sum_i clip(g_i - x, tau) = 0.

Rules of this file

1. The fixed point minimises a sum of Huber functions, so any method may find it. We iterate on n
   coefficients (x = sum_i c_i g_i) with the Gram matrix of the rows instead of on vectors.
2. The start is the medoid, never a row that an attacker can choose. Distances are corrected, in
   float64, at the point reached; where cancellation spoiled the Gram matrix it is taken anew
   around that point.
3. The residual is recomputed in float64 from the final float32 aggregate and the rows, in the pass that writes the
   aggregate. Weights foreseen there are a little off: the first order of that is taken from the rows
   as well, the second from the Gram, and where the second matters, there is a pass for the residual alone.
4. Finiteness is per row and comes first: the diagonal of the uncentred Gram shows it, because one
   row's NaN cannot reach another row's diagonal element.

Why this is right, and what it costs: docs/explanation/centered-clip.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btard.robust.blocks import check_rows, iterate_blocks
from btard.robust.kernels import add_products, add_squares, find_rows, write_output

Vector = NDArray[np.float64]

MAX_VALUE = float(np.float32(1e30))
"""Larger elements count as overflow; a sum of squares of smaller ones is far from the end of float64."""

FAR = 1e3
"""How much larger the squared distances of most rows from row 0 may be than between them before digits are lost."""

HALF_ULP = 2.0**-24
"""Largest relative error of rounding to float32."""

MAX_PASSES = 8
"""Corrections of the output; two suffice in every case measured, more means the rows are degenerate."""

MAX_ITERATIONS = 5_000
"""Reweightings per pass, about 10 us each; the largest number measured is a few hundred."""

TIE = 1e-3
"""Relative difference of squared distances that counts as none: the medoid is only where the search starts."""

MAX_DRIFT = 1e-4
"""Relative error of a distance beyond which the Gram matrix is taken anew."""

MAX_CHANGE = 8.0
"""How far, in units of epsilon * tau, foreseen weights may leave the residual before it gets a pass of its own.

The Gram's share of its square is at most 64 (epsilon * tau)^2, and off by 1e-5 of that: 1e-3 of the bound at most.
"""


@dataclass(frozen=True)
class Clipped:
    """The outcome of CenteredClip on one part.

    ``aggregate`` is float32 of shape (L,); ``residual`` is ||sum_i clip(g_i - aggregate, tau)||,
    recomputed in float64; ``clipped`` counts the rows farther than tau; ``iterations`` the reweightings.
    """

    aggregate: Tensor
    residual: float
    clipped: int
    iterations: int


@dataclass(frozen=True)
class _Frame:
    """Where the search stands: x = sum_i c_i g_i at ``base``, and the Gram of g_i - x (n, n), exact on its diagonal."""

    base: Vector
    gram: Vector


@dataclass(frozen=True)
class _Output:
    """A float32 aggregate, its norm, and the float64 distance of every row to it (n,).

    With the ``weights`` (n,) that were foreseen the clipped differences add up to a vector whose squared
    norm is ``square``, and whose inner products with the differences are ``along`` (n,).
    """

    aggregate: Tensor
    norm: float
    distances: Vector
    weights: Vector
    square: float
    along: Vector


def find_non_finite(rows: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the indices of rows with a NaN, an infinity, or an element beyond 1e30."""
    return tuple(index for index, row in enumerate(rows) if not is_finite(row))


def is_finite(row: Tensor) -> bool:
    """Return whether a row holds no NaN, no infinity and no element beyond 1e30."""
    if row.numel() == 0:
        return True
    lowest, highest = torch.aminmax(row.detach())
    low, high = lowest.item(), highest.item()
    return low >= -MAX_VALUE and high <= MAX_VALUE  # false for NaN as well, which aminmax hands on


def compute_norm(values: Tensor) -> float:
    """Return the Euclidean norm of a flat float32 vector, its squares summed in float64 without a copy."""
    return math.sqrt(add_squares(values.numpy()))


def compute_residual_bound(aggregate_norm: float, rows: int, tau: float, epsilon: float) -> float:
    """Return the largest residual that an honest aggregator may leave.

    The search stops within epsilon * tau; rounding the aggregate to float32 moves it by at most
    2^-24 of its norm, and clipping is 1-Lipschitz in each of the rows.
    """
    return epsilon * tau + rows * HALF_ULP * aggregate_norm


def compute_residual(rows: Sequence[Tensor], aggregate: Tensor, tau: float) -> float:
    """Return ||sum_i clip(g_i - aggregate, tau)||, in float64 throughout; NaN if a row is not finite.

    Raises:
        ValueError: the rows are not flat float32 vectors of the aggregate's length.
    """
    check_rows([*rows, aggregate])
    if aggregate.numel() == 0:
        return 0.0
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for where, block in iterate_blocks(rows):
        block.sub_(aggregate[where].double())
        squares += _compute_squares(block)
    return _sum_clipped(rows, aggregate, _compute_weights(squares.sqrt().numpy(), tau))


def compute_mean(rows: Sequence[Tensor]) -> Tensor:
    """Return the plain mean (L,) float32, summed in float64: no defence, for comparison only.

    Raises:
        ValueError: the rows are not flat float32 vectors of one length.
    """
    mean = torch.empty(check_rows(rows))
    for where, block in iterate_blocks(rows):
        mean[where] = block.mean(dim=0)
    return mean


def compute_centered_clip(rows: Sequence[Tensor], tau: float, epsilon: float, out: Tensor | None = None) -> Clipped:
    """Return the CenteredClip of the rows (paper: ButterflyClip, step 6), the aggregate in ``out`` if that is given.

    The residual is within ``compute_residual_bound`` unless eight corrections did not reach it
    (rows all clipped and collinear); callers compare it with that bound.

    Raises:
        ValueError: the rows are not flat float32 vectors of one length, some are not finite (the
            message names them), or tau or epsilon is not positive.
    """
    if check_rows(rows) == 0:
        return Clipped(torch.empty(0), 0.0, 0, 0)
    aggregate = torch.empty(rows[0].numel()) if out is None else out
    check_rows([aggregate, rows[0]])
    if not (0 < tau < math.inf and 0 < epsilon < 1):
        raise ValueError(f"tau {tau} and epsilon {epsilon} must be positive, epsilon below 1")
    gram, squares, precision = _compute_first_gram(rows)
    center, (medoid, reach) = 0, _find_medoid(gram, squares)
    if np.median(np.diagonal(gram)) > FAR * reach:
        center, gram = medoid, _compute_gram(rows, rows[medoid], precision)[0]
        medoid, _ = _find_medoid(gram, squares)
    unit = np.eye(len(rows))
    frame = _move(_Frame(unit[center], gram), unit[medoid])
    iterations = 0
    for _ in range(MAX_PASSES):
        coefficients, predicted, steps = _reweight(frame, tau, epsilon)
        iterations += steps
        output = _compute_output(rows, coefficients, _compute_weights(predicted, tau), aggregate)
        frame = _correct(_move(frame, coefficients), output.distances)
        clipped = _judge(rows, frame, output, tau, epsilon)
        if clipped is not None:
            break
        if np.any(np.abs(predicted - output.distances) > MAX_DRIFT * np.maximum(output.distances, tau)):
            recentred = _Frame(coefficients, _compute_gram(rows, output.aggregate, precision)[0])
            frame = _correct(recentred, output.distances)
    else:
        clipped = _measure(rows, output, tau)
    return replace(clipped, iterations=iterations)


def _judge(rows: Sequence[Tensor], frame: _Frame, output: _Output, tau: float, epsilon: float) -> Clipped | None:
    """Return the outcome if its recomputed residual is within the bound; an estimate saves hopeless passes.

    The estimate, e' K e with exact weights, leaves out the rounding to float32, which is given
    three quarters of its share of the bound.
    """
    weights = _compute_weights(output.distances, tau)
    bound = compute_residual_bound(output.norm, len(rows), tau, epsilon)
    change = weights - output.weights
    if np.abs(change) @ output.distances <= MAX_CHANGE * epsilon * tau:
        square = output.square + float(2 * (change @ output.along) + change @ frame.gram @ change)
        clipped = _tell(output, math.sqrt(max(square, 0.0)), tau)
    else:
        error = weights - frame.base * weights.sum()
        estimate = math.sqrt(max(float(error @ frame.gram @ error), 0.0))
        if estimate > (bound + epsilon * tau) / 4:
            return None
        clipped = _measure(rows, output, tau)
    return clipped if clipped.residual <= bound else None


def _measure(rows: Sequence[Tensor], output: _Output, tau: float) -> Clipped:
    """Return the outcome with its residual recomputed from the rows in a pass of its own."""
    return _tell(output, _sum_clipped(rows, output.aggregate, _compute_weights(output.distances, tau)), tau)


def _tell(output: _Output, residual: float, tau: float) -> Clipped:
    """Return the outcome with this residual; the iterations are the caller's to fill in."""
    return Clipped(output.aggregate, residual, int(np.count_nonzero(output.distances > tau)), 0)


def _compute_first_gram(rows: Sequence[Tensor]) -> tuple[Vector, Vector, torch.dtype]:
    """Return the Gram matrix around row 0, the rows' squares, and the precision: float64 only if float32 overflows.

    Around a row that lies with the others, what they have in common costs the differences between them no digits;
    whoever is row 0 may lie far away.

    Raises:
        ValueError: some rows are not finite; the message names them.
    """
    gram, squares = _compute_gram(rows, rows[0], torch.float32)
    if np.isfinite(gram).all() and np.isfinite(squares).all():
        return gram, squares, torch.float32
    broken = find_non_finite(rows)
    if broken:
        raise ValueError(f"rows {', '.join(map(str, broken))} hold NaN, an infinity, or an element beyond 1e30")
    return *_compute_gram(rows, rows[0], torch.float64), torch.float64


def _compute_gram(rows: Sequence[Tensor], center: Tensor, precision: torch.dtype) -> tuple[Vector, Vector]:
    """Return the (n, n) inner products of g_i - center, and the (n,) squares of g_i: products in ``precision``."""
    gram, squares = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
    if precision == torch.float32:
        add_products(find_rows(rows), find_rows([center])[0], rows[0].numel(), gram, squares)
        return gram, squares
    for where, block in iterate_blocks(rows):
        squares += _compute_squares(block).numpy()
        block.sub_(center[where])
        gram += (block @ block.T).numpy()
    return gram, squares


def _find_medoid(gram: Vector, squares: Vector) -> tuple[int, float]:
    """Return the row whose median distance to all rows is smallest, of equals the shortest, and that distance's square.

    The median counts more than half of the rows, so at least one of them is honest: a row of the
    attackers wins only if it lies as close to honest rows as they do to each other. Where attackers are
    exactly half (an honest validator contributes nothing), the honest row nearest to theirs has the same
    median, and the fixed point is anywhere between: then no direction is taken that a longer row wants.
    """
    diagonal = np.diagonal(gram)
    distances = np.maximum(diagonal[:, None] + diagonal[None, :] - 2 * gram, 0.0)
    np.fill_diagonal(distances, 0.0)
    medians = np.sort(distances, axis=1)[:, len(gram) // 2]
    equals = np.flatnonzero(medians <= (1 + TIE) * medians.min())
    return int(equals[int(np.argmin(squares[equals]))]), float(medians.min())


def _move(frame: _Frame, coefficients: Vector) -> _Frame:
    """Return the frame with its point moved to ``coefficients``, the Gram shifted along."""
    step = coefficients - frame.base
    along = frame.gram @ step
    return _Frame(coefficients, frame.gram - along[:, None] - along[None, :] + step @ along)


def _correct(frame: _Frame, distances: Vector) -> _Frame:
    """Return the frame with the diagonal of its Gram replaced by exact squared distances."""
    gram = frame.gram.copy()
    np.fill_diagonal(gram, distances**2)
    return _Frame(frame.base, gram)


def _compute_weights(distances: Vector, tau: float) -> Vector:
    """Return min(1, tau / d), the factor by which clipping shortens each row; NaN stays NaN."""
    weights: Vector = tau / np.maximum(distances, tau)
    return weights


def _reweight(frame: _Frame, tau: float, epsilon: float) -> tuple[Vector, Vector, int]:
    """Return coefficients of the fixed point, the distances predicted there, and the number of steps.

    x <- sum w_i g_i / sum w_i with w_i = min(1, tau / d_i): the fixed point of CenteredClip, reached
    in fewer steps. Stops when sum |w_i - c_i sum(w)| d_i, which bounds the residual, is small.
    """
    diagonal, coefficients, steps = np.diagonal(frame.gram), frame.base, 0
    while True:
        steps += 1
        step = coefficients - frame.base
        along = frame.gram @ step
        distances = np.sqrt(np.maximum(diagonal - 2 * along + step @ along, 0.0))
        weights = _compute_weights(distances, tau)
        total = weights.sum()
        excess = np.abs(weights - coefficients * total) @ distances
        if excess <= epsilon * tau / 8 or steps == MAX_ITERATIONS:
            return coefficients, distances, steps
        coefficients = weights / total


def _compute_output(rows: Sequence[Tensor], coefficients: Vector, weights: Vector, aggregate: Tensor) -> _Output:
    """Write sum_i c_i g_i, rounded once, to ``aggregate``; return it with float64 distances to it: one pass."""
    squares, along = np.zeros(len(rows)), np.zeros(len(rows))
    norm, square = write_output(find_rows(rows), coefficients, weights, aggregate.numpy(), squares, along)
    return _Output(aggregate, math.sqrt(norm), np.sqrt(squares), weights, square, along)


def _compute_squares(block: Tensor) -> Tensor:
    """Return the squared norm of every row of a float64 block, (n,)."""
    squares: Tensor = torch.linalg.vector_norm(block, dim=1).square_()
    return squares


def _sum_clipped(rows: Sequence[Tensor], aggregate: Tensor, weights: Vector) -> float:
    """Return ||sum_i w_i (g_i - aggregate)|| in float64, one pass."""
    factors, total, square = torch.from_numpy(weights), float(weights.sum()), 0.0
    for where, block in iterate_blocks(rows):
        clipped = torch.add(factors @ block, aggregate[where].double(), alpha=-total)
        square += float(clipped.dot(clipped))
    return math.sqrt(square)


def compute_centered_clip_reference(rows: Sequence[Tensor], tau: float, epsilon: float) -> Clipped:
    """Return CenteredClip by direct iteration on float64 vectors: the readable form that the fast one is tested on.

    The step is the paper's, sum_i clip(g_i - x) / n, but divided by sum_i w_i instead of n: the same
    fixed point in fewer steps. It copies all rows.

    Raises:
        ValueError: as ``compute_centered_clip``.
    """
    check_rows(rows)
    broken = find_non_finite(rows)
    if broken:
        raise ValueError(f"rows {', '.join(map(str, broken))} hold NaN, an infinity, or an element beyond 1e30")
    matrix = torch.stack(list(rows)).double()
    pairwise = torch.cdist(matrix, matrix, compute_mode="donot_use_mm_for_euclid_dist")
    x = matrix[pairwise.sort(dim=1).values[:, len(rows) // 2].argmin()]
    iterations = 0
    while True:
        iterations += 1
        differences = matrix - x
        weights = (tau / differences.norm(dim=1).clamp(min=1e-300)).clamp(max=1.0)
        step = weights @ differences
        if step.norm() <= epsilon * tau or iterations == 4 * MAX_ITERATIONS:
            break
        x = x + step / weights.sum()
    aggregate = x.float()
    distances = (matrix - aggregate.double()).norm(dim=1)
    return Clipped(aggregate, compute_residual(rows, aggregate, tau), int((distances > tau).sum()), iterations)
