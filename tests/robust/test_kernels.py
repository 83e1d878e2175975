"""The compiled loops beside plain arithmetic, on rows wherever they lie."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from btard.robust.kernels import BUCKETS, LINE, add_products, find_rows, fold_rows, write_output

LENGTHS = st.sampled_from([1, 2, 7, LINE - 1, LINE, LINE + 1, 3 * LINE + 5])


def make_rows(count: int, length: int, seed: int) -> list[Tensor]:
    """Rows that do not begin where memory does, nor lie beside each other."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length + 3 + index, generator=generator)[index + 1 :][:length] for index in range(count)]


@given(count=st.integers(1, 9), length=LENGTHS, seed=st.integers(0, 2**32))
def test_products_of_all_rows(count: int, length: int, seed: int) -> None:
    """Both halves of the matrix, around any point; and the squares of the rows."""
    *rows, center = make_rows(count + 1, length, seed)
    gram, squares, matrix = np.zeros((count, count)), np.zeros(count), torch.stack(rows).double().numpy()
    add_products(find_rows(rows), center.data_ptr(), length, gram, squares)
    differences = matrix - center.double().numpy()
    assert np.allclose(gram, differences @ differences.T, rtol=1e-5, atol=1e-6 * length)
    assert np.allclose(squares, (matrix**2).sum(axis=1), rtol=1e-5)


@given(count=st.integers(1, 9), length=LENGTHS, seed=st.integers(0, 2**32))
def test_the_output_and_what_it_leaves(count: int, length: int, seed: int) -> None:
    """The sum is rounded once, and distances are to what was rounded."""
    rows = make_rows(count, length, seed)
    matrix, drawn = torch.stack(rows).double().numpy(), np.random.default_rng(seed)
    coefficients, weights = drawn.random(count), drawn.random(count)
    aggregate, squares, along = np.full(length, np.nan, dtype=np.float32), np.zeros(count), np.zeros(count)
    norm, square = write_output(find_rows(rows), coefficients, weights, aggregate, squares, along)
    exact = coefficients @ matrix
    assert np.all(np.abs(aggregate - exact) <= 2.0**-24 * np.abs(exact) + 1e-14 * np.abs(coefficients) @ np.abs(matrix))
    differences = matrix - aggregate
    clipped = weights @ differences
    assert np.isclose(norm, aggregate.astype(np.float64) @ aggregate.astype(np.float64), rtol=1e-10)
    assert np.isclose(square, clipped @ clipped, rtol=1e-8, atol=1e-12)
    assert np.allclose(squares, (differences**2).sum(axis=1), rtol=1e-10)
    assert np.allclose(along, differences @ clipped, rtol=1e-8, atol=1e-10)


@given(
    length=st.sampled_from([1, 5, BUCKETS, BUCKETS + 1, 2 * BUCKETS + 7]),
    column=st.sampled_from([0, 1, BUCKETS - 1]),
    is_centered=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_rows_are_folded_to_where_they_are_rotated(length: int, column: int, is_centered: bool, seed: int) -> None:
    """Each element, its difference rounded to float32, has its sign and adds to one bucket."""
    drawn = np.random.default_rng(seed)
    values, center, signs = (drawn.standard_normal(length).astype(np.float32) for _ in range(3))
    signs, center = np.sign(signs) + (signs == 0), center if is_centered else center[:0]
    rotations = drawn.integers(0, BUCKETS, -(-(column + length) // BUCKETS))
    expected = np.zeros(2 * BUCKETS)
    folded = ((values - center) if is_centered else values) * signs
    for index, value in enumerate(folded):
        row, place = divmod(column + index, BUCKETS)
        expected[rotations[row] + place] += np.float64(value)
    sums = np.zeros(2 * BUCKETS)
    square = fold_rows(values, center, signs.astype(np.float32), column, rotations, sums)
    assert np.allclose(sums, expected, rtol=1e-12, atol=1e-12)
    assert np.isclose(square, np.square(folded.astype(np.float64)).sum(), rtol=1e-12)


def test_rows_with_gaps_are_refused() -> None:
    """A loop would read what lies between their elements."""
    with pytest.raises(ValueError, match="side by side"):
        find_rows([torch.zeros(8)[::2]])


@pytest.mark.parametrize("value", [1e30, -3e38, float("nan"), float("inf")])
def test_what_float32_cannot_hold_shows(value: float) -> None:
    """The squares are not finite, and the caller takes another way."""
    row, gram, squares = torch.ones(LINE), np.zeros((1, 1)), np.zeros(1)
    row[7] = value
    add_products(find_rows([row]), row.data_ptr(), LINE, gram, squares)
    assert not np.isfinite(squares).any()


@pytest.mark.parametrize("left", [b"", bytes(64)])
def test_a_damaged_cache_keeps_nobody_from_starting(left: bytes, tmp_path: Path) -> None:
    """After a power loss what was compiled may lie there cut short: it is compiled anew."""
    program = "import numba; from btard.robust.kernels import add_squares; print(add_squares.signatures)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=100)
        for path in tmp_path.rglob("kernels.add_squares*"):
            path.write_bytes(left)
    assert list(tmp_path.rglob("kernels.add_squares*"))
