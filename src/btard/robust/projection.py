"""
Random projections of clipped differences: what Verification 1 adds up and Verification 2 looks at.

One draw fixes ``count`` directions z_1..z_count in R^D, bit-exact on every machine. With row r = a // 4096
and column c = a % 4096 of element a of the flat vector,

    z_k[a] = sign[a] * second[k, (c + rotation[r]) % 4096],

so an inner product is one pass that folds the vector into 4096 buckets, shared by all k, and then
``count`` products of 4096 sums. Everything is a function of the absolute index a: the projection
of the whole is the sum of the projections of its slices, and a slice needs only its own stretch
of the streams (one BLAKE3 stream per 65,536 elements).

Differences from an aggregate are float32, rounded element by element: the same bits on every machine.
All sums are float64; only their order differs between machines, which is what ``ROUNDING`` allows for.

What a wrong aggregate's chance to slip through is: docs/explanation/centered-clip.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btard.identity import Context, expand
from btard.robust.clip import HALF_ULP
from btard.robust.kernels import BUCKETS, fold_rows

Vector = NDArray[np.float64]
Array = NDArray[np.float32]

NOTHING = np.empty(0, dtype=np.float32)
"""The center of what is folded as it is."""

BLOCK_ROWS = 16
BLOCK = BLOCK_ROWS * BUCKETS
"""Elements whose signs and rotations come from one stream, and that are worked on at once: 1 MiB stays in the cache."""

SHORT = 512
"""Slices that end before this element of a row are folded alone: thousands of empty buckets cost more than they do."""

PROJECTION_FACTOR = 9.0
"""An honest |s| exceeds 9 times its norm with probability below 2 exp(-40)."""

ROUNDING = 1e-9
"""Relative rounding allowed in float64 sums of up to 2^32 elements; errors measured are below 1e-13."""

SIGNS_OF_BYTE = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)


@dataclass(frozen=True)
class _Block:
    """What a slice has of one block: elements ``where`` of it, the first in ``column`` of its row.

    Their signs are (len,), ``rotations`` those of the rows that they touch.
    """

    where: slice
    column: int
    signs: Array
    rotations: NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Sums (n, width) of the buckets from ``first`` on, wrapped, and squared norms (n,) of n slices.

    All other buckets are empty; ``width`` is BUCKETS, or less for short slices.
    """

    buckets: Vector
    squares: Vector
    first: int = 0


class Directions:
    """The directions of one draw (paper: z from r^t): the same for every peer that holds the 32-byte ``seed``."""

    def __init__(self, seed: bytes, elements: int, count: int = 10) -> None:
        if len(seed) != 32 or elements < 1 or count < 1:
            raise ValueError("directions need a seed of 32 bytes, at least one element and one direction")
        self._seed, self.elements, self.count = seed, elements, count
        stream = np.frombuffer(expand(Context.DIRECTIONS, seed + b"second", count * BUCKETS // 8), dtype=np.uint8)
        self._second = SIGNS_OF_BYTE[stream].reshape(count, BUCKETS).astype(np.float64)

    def project(self, vector: Tensor, start: int) -> Vector:
        """Return <z_k, vector> for every k, (count,), of the slice that begins at element ``start``.

        Raises:
            ValueError: the slice is not flat float32 or leaves the flat vector.
        """
        projections: Vector = self.project_rows([vector], start)[0]
        return projections

    def project_rows(self, rows: Sequence[Tensor], start: int) -> Vector:
        """Return (n, count) projections of n vectors of one slice; signs are expanded once for all.

        Raises:
            ValueError: as ``project``.
        """
        return self.finish(self.fold(rows, None, start))

    def finish(self, fold: Fold) -> Vector:
        """Return the (n, count) products of bucket sums with the second signs."""
        width, second = fold.buckets.shape[1], self._second
        if width < BUCKETS:
            second = np.take(second, range(fold.first, fold.first + width), axis=1, mode="wrap")
        products: Vector = np.einsum("kb,nb->nk", second, fold.buckets)
        return products

    def fold(self, rows: Sequence[Tensor], center: Tensor | None, start: int) -> Fold:
        """Return the fold of row - center (or of the rows, without a center): float32 differences, float64 sums.

        Each row is added up on its own in the same order, so its bits do not depend on the others.

        Raises:
            ValueError: as ``project``.
        """
        length = rows[0].numel()
        arrays = [self._view(row, start, length) for row in rows]
        shift = NOTHING if center is None else self._view(center, start, length)
        if 0 < length <= SHORT - start % BUCKETS:
            return self._fold_short(arrays, shift, start)
        # Twice as many sums as buckets: a rotated row is then one contiguous addition, wrapped once at the end.
        sums, squares = np.zeros((len(arrays), 2 * BUCKETS)), np.zeros(len(arrays))
        for block in self._blocks(start, start + length):
            around = shift[block.where]
            for index, array in enumerate(arrays):
                squares[index] += fold_rows(
                    array[block.where], around, block.signs, block.column, block.rotations, sums[index]
                )
        return Fold(sums[:, :BUCKETS] + sums[:, BUCKETS:], squares)

    def _fold_short(self, arrays: Sequence[Array], center: Array, start: int) -> Fold:
        """Return the fold of slices within one row: every element has a bucket to itself."""
        [block] = self._blocks(start, start + len(arrays[0]))
        sums, squares = np.empty((len(arrays), len(arrays[0]))), np.empty(len(arrays))
        for index, array in enumerate(arrays):
            sums[index] = (array - center if center.size else array) * block.signs
            squares[index] = sums[index] @ sums[index]
        return Fold(sums, squares, (block.column + block.rotations[0]) % BUCKETS)

    def _view(self, vector: Tensor, start: int, length: int) -> Array:
        if vector.dtype != torch.float32 or vector.dim() != 1 or vector.numel() != length:
            raise ValueError(f"expected a flat float32 vector of {length} elements, got {vector.dtype} {vector.shape}")
        if not 0 <= start <= start + length <= self.elements:
            raise ValueError(f"elements {start} to {start + length} are not within the {self.elements} of the vector")
        array: Array = vector.detach().numpy()
        return array

    def _blocks(self, start: int, stop: int) -> Iterator[_Block]:
        """Yield every block that elements start..stop touch; its signs are valid until the next one is drawn.

        A block needs 8,224 bytes of its own stream.
        """
        table = np.empty((min(BLOCK, stop - start + 14) // 8 + 1, 8), dtype=np.float32)
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            first, last = max(start - number * BLOCK, 0), min(stop - number * BLOCK, BLOCK)
            seed = self._seed + b"block" + number.to_bytes(8, "little")
            stream = np.frombuffer(expand(Context.DIRECTIONS, seed, BLOCK // 8 + 2 * BLOCK_ROWS), dtype=np.uint8)
            used = stream[first // 8 : -(-last // 8)]
            signs = np.take(SIGNS_OF_BYTE, used, axis=0, out=table[: len(used)], mode="clip").reshape(-1)
            rotations = (stream[BLOCK // 8 :].view("<u2") % BUCKETS).astype(np.int64)
            where = slice(number * BLOCK + first - start, number * BLOCK + last - start)
            row, column = divmod(first, BUCKETS)
            touched = rotations[row : -(-last // BUCKETS)]
            yield _Block(where, column, signs[first % 8 : first % 8 + last - first], touched)


def compute_report(
    directions: Directions, gradient: Tensor, aggregate: Tensor, tau: float, start: int
) -> tuple[Vector, float]:
    """Return what a peer reports in CHECK for one part (paper: s_i^j and the norm of Verification 2).

    That is <z_k, clip(d, tau)> for every k, (count,), and ||d||, both float64, with d = g - ghat in
    float32, for the slices that begin at element ``start``.

    Raises:
        ValueError: the slices are not flat float32 vectors of one length within the flat vector.
    """
    projections, norms = compute_reports(directions, [gradient], aggregate, tau, start)
    return projections[0], float(norms[0])


def compute_reports(
    directions: Directions, rows: Sequence[Tensor], aggregate: Tensor, tau: float, start: int
) -> tuple[Vector, Vector]:
    """Return the reports of n slices of one part, (n, count) and (n,): bit-equal to n single ones, but faster.

    Raises:
        ValueError: as ``compute_report``.
    """
    if not aggregate.numel():
        return np.zeros((len(rows), directions.count)), np.zeros(len(rows))
    fold = directions.fold(rows, aggregate, start)
    norms = np.sqrt(fold.squares)
    scale = np.divide(tau, norms, out=np.ones_like(norms), where=norms > tau)
    return directions.finish(fold) * scale[:, None], norms


def compute_sum_tolerance(residual_bound: float, tau: float, rows: int) -> float:
    """Return how far |sum_i s_i| of an honest column may be from zero (Verification 1), at most 0.01 tau.

    The sum is <z, R> with ||R|| <= residual_bound, so 9 times that. Rounding a difference to float32
    moves its clipped form by at most 2^-24 tau, before z is drawn; the summation adds less.
    Beyond 0.01 tau the column is opened, lest a huge aggregate buy itself a tolerance.
    """
    return min(PROJECTION_FACTOR * (residual_bound + rows * (HALF_ULP + ROUNDING) * tau), 0.01 * tau)


def compute_report_tolerance(norm: float, tau: float) -> float:
    """Return how far two recomputations of s from the same bits may differ: float64 rounding, nothing else."""
    return PROJECTION_FACTOR * ROUNDING * min(norm, tau)


def compute_norm_tolerance(norm: float) -> float:
    """Return how far two recomputations of a norm from the same bits may differ."""
    return ROUNDING * norm
