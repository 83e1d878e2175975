"""
The inner loops of CenteredClip and of the projections: compiled, for numpy and torch make a pass of each operation.

A loop reads its vectors once, works in registers and in the first cache, and lets go of the GIL. Differences are
rounded to float32 element by element, the same bits everywhere; sums are float64, and the compiler chooses their order.
The code is kept beside this file, or in the user's cache: only the first process of a machine compiles it (numba;
decision record 30).
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Array = NDArray[np.float32]
Vector = NDArray[np.float64]

BUCKETS = 4096
"""Elements per row of a fold, and sums that it adds them to."""

LINE = 1024
"""Elements worked on at once: two lines of float64 stay in the first cache."""


def _compile(signature: str) -> Callable[[Kernel], Kernel]:
    """Return what compiles a function now, so that no round waits for it, and keeps the code where there is a place."""
    compiling = partial(numba.njit, signature, nogil=True, fastmath={"reassoc", "contract", "nsz"}, boundscheck=False)

    def compile_now(function: Kernel) -> Kernel:
        try:
            return cast("Kernel", compiling(cache=True)(function))
        except RuntimeError:  # neither this directory nor the user's cache can be written
            return cast("Kernel", compiling()(function))

    return compile_now


@_compile("float64(float32[::1], float32[::1], float32[::1], int64, int64[::1], float64[::1])")
def fold_rows(
    values: Array, center: Array, signs: Array, column: int, rotations: NDArray[np.int64], sums: Vector
) -> float:
    """Add values - center, signed, to ``sums`` (2 * BUCKETS,), each row rotated; return the sum of squares.

    The first element is in ``column`` of its row; ``center`` may be empty. Rows lie side by side.
    """
    square, start = 0.0, 0
    for rotation in rotations:
        row, sign = values[start : start + BUCKETS - column], signs[start : start + BUCKETS - column]
        there = sums[rotation + column : rotation + BUCKETS]
        partial = 0.0
        if center.size:
            shift = center[start : start + BUCKETS - column]
            for i in range(row.size):
                wide = np.float64((row[i] - shift[i]) * sign[i])
                there[i] += wide
                partial += wide * wide
        else:
            for i in range(row.size):
                wide = np.float64(row[i] * sign[i])
                there[i] += wide
                partial += wide * wide
        square += partial
        start, column = start + BUCKETS - column, 0
    return square


@_compile("UniTuple(float64, 2)(float32[:, ::1], float64[::1], float64[::1], float32[::1], float64[::1], float64[::1])")
def write_output(
    block: Array, coefficients: Vector, weights: Vector, aggregate: Array, squares: Vector, along: Vector
) -> tuple[float, float]:
    """Write sum_i c_i g_i for a block (n, m), rounded to float32, to ``aggregate`` (m,), and measure what it leaves.

    With d_i = g_i - aggregate and e = sum_i w_i d_i, adds the d_i . d_i to ``squares`` (n,) and the d_i . e to
    ``along`` (n,); returns the squared norms of the aggregate and of e.
    """
    rows, length = block.shape
    total = weights.sum()
    outputs, excesses = np.empty(LINE), np.empty(LINE)
    norm = square = 0.0
    for start in range(0, length, LINE):
        narrow = aggregate[start : start + LINE]
        output, excess = outputs[: narrow.size], excesses[: narrow.size]
        output[:] = 0.0
        excess[:] = 0.0
        for row in range(rows):
            line, coefficient, weight = block[row, start : start + LINE], coefficients[row], weights[row]
            for i in range(line.size):
                wide = np.float64(line[i])
                output[i] += coefficient * wide
                excess[i] += weight * wide
        for i in range(narrow.size):
            narrow[i] = output[i]
            rounded = np.float64(narrow[i])
            output[i] = rounded
            norm += rounded * rounded
            left = excess[i] - total * rounded
            excess[i] = left
            square += left * left
        for row in range(rows):
            line = block[row, start : start + LINE]
            own = other = 0.0
            for i in range(line.size):
                difference = np.float64(line[i]) - output[i]
                own += difference * difference
                other += difference * excess[i]
            squares[row] += own
            along[row] += other
    return norm, square
