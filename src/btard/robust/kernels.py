"""
The inner loops of CenteredClip and of the projections: compiled, for numpy and torch make a pass of each operation.

A loop reads its vectors once, works in registers and in the first cache, and lets go of the GIL. Differences are
rounded to float32 element by element, the same bits everywhere; sums are float64 (of products, from line to line), and
the compiler chooses their order.
The code is kept beside this file, or in the user's cache: only the first process of a machine compiles it (numba;
decision record 30).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Array = NDArray[np.float32]
Vector = NDArray[np.float64]
Addresses = NDArray[np.int64]

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
        except Exception:  # noqa: BLE001  no place can be written, or what lies there is damaged: whatever comes of it
            return cast("Kernel", compiling()(function))

    return compile_now


@intrinsic  # type: ignore[untyped-decorator]
def _at(_context: Any, _address: Any) -> Any:
    """Return the float32 values at an address, for ``numba.carray``: rows that lie apart are read where they are."""

    def generate(context: Any, builder: Any, signature: Any, words: Any) -> Any:
        return builder.inttoptr(words[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


def find_rows(rows: Sequence[Tensor]) -> Addresses:
    """Return where float32 rows lie, (n,): as long as they live.

    Raises:
        ValueError: a row does not lie in one piece.
    """
    if not all(row.is_contiguous() for row in rows):
        raise ValueError("the elements of a row must lie side by side")
    return np.array([row.data_ptr() for row in rows], dtype=np.int64)


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


@_compile("float64(float32[::1])")
def add_squares(values: Array) -> float:
    """Return the sum of squares in float64."""
    total = 0.0
    for i in range(values.size):
        wide = np.float64(values[i])
        total += wide * wide
    return total


@_compile("void(int64[::1], int64, int64, float64[:, ::1], float64[::1])")
def add_products(rows: Addresses, center: int, length: int, gram: NDArray[np.float64], squares: Vector) -> None:
    """Add all products of g_i - center (``length`` elements) to ``gram`` (n, n), and g_i . g_i to ``squares``.

    Differences are float32, products of a line are summed in it, lines in float64; what float32 cannot hold becomes
    infinite or NaN.
    """
    differences = np.empty((rows.size, LINE), dtype=np.float32)
    for start in range(0, length, LINE):
        width = min(LINE, length - start)
        shift = numba.carray(_at(center + 4 * start), width)
        for row in range(rows.size):
            line, difference = numba.carray(_at(rows[row] + 4 * start), width), differences[row]
            square = np.float32(0.0)
            for i in range(width):
                difference[i] = line[i] - shift[i]
                square += line[i] * line[i]
            squares[row] += square
        for first in range(rows.size):
            one = differences[first]
            for second in range(first + 1):
                other = differences[second]
                product = np.float32(0.0)
                for i in range(width):
                    product += one[i] * other[i]
                gram[first, second] += product
    for first in range(rows.size):
        for second in range(first):
            gram[second, first] = gram[first, second]


@_compile("UniTuple(float64, 2)(int64[::1], float64[::1], float64[::1], float32[::1], float64[::1], float64[::1])")
def write_output(
    rows: Addresses, coefficients: Vector, weights: Vector, aggregate: Array, squares: Vector, along: Vector
) -> tuple[float, float]:
    """Write sum_i c_i g_i of the rows (n,), rounded to float32, to ``aggregate`` (m,), and measure what it leaves.

    With d_i = g_i - aggregate and e = sum_i w_i d_i, adds the d_i . d_i to ``squares`` (n,) and the d_i . e to
    ``along`` (n,); returns the squared norms of the aggregate and of e.
    """
    total = weights.sum()
    outputs, excesses = np.empty(LINE), np.empty(LINE)
    norm = square = 0.0
    for start in range(0, aggregate.size, LINE):
        narrow = aggregate[start : start + LINE]
        output, excess = outputs[: narrow.size], excesses[: narrow.size]
        output[:] = 0.0
        excess[:] = 0.0
        for row in range(rows.size):
            line = numba.carray(_at(rows[row] + 4 * start), narrow.size)
            coefficient, weight = coefficients[row], weights[row]
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
        for row in range(rows.size):
            line = numba.carray(_at(rows[row] + 4 * start), narrow.size)
            own = other = 0.0
            for i in range(line.size):
                difference = np.float64(line[i]) - output[i]
                own += difference * difference
                other += difference * excess[i]
            squares[row] += own
            along[row] += other
    return norm, square
