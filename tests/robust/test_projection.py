"""Projections are what their definition says, the same for everyone, and no residual hides from them."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from btard.identity import Context, expand
from btard.robust import (
    PROJECTION_FACTOR,
    Directions,
    compute_centered_clip,
    compute_norm_tolerance,
    compute_report,
    compute_report_tolerance,
    compute_reports,
    compute_residual_bound,
    compute_sum_tolerance,
)
from btard.robust.clip import HALF_ULP
from btard.robust.projection import BLOCK, BUCKETS, ROUNDING

KNOWN = [24.0, 252.0, -238.0, 180.0]
ELEMENTS = 2 * BLOCK + 5 * BUCKETS + 77
SEED = bytes(range(32))


def compute_directions_plainly(seed: bytes, elements: int, count: int) -> np.ndarray:
    """Return z (count, elements) by its definition, element by element from the streams."""
    second = 1.0 - 2.0 * np.unpackbits(
        np.frombuffer(expand(Context.DIRECTIONS, seed + b"second", count * BUCKETS // 8), np.uint8)
    ).reshape(count, BUCKETS)
    z = np.empty((count, elements))
    for number in range(-(-elements // BLOCK)):
        block_seed = seed + b"block" + number.to_bytes(8, "little")
        stream = expand(Context.DIRECTIONS, block_seed, BLOCK // 8 + 32)
        signs = 1.0 - 2.0 * np.unpackbits(np.frombuffer(stream[: BLOCK // 8], np.uint8))
        for row in range(16):
            rotation = int.from_bytes(stream[BLOCK // 8 + 2 * row :][:2], "little") % BUCKETS
            first = number * BLOCK + row * BUCKETS
            wanted = min(BUCKETS, elements - first)
            if wanted > 0:
                chosen = second[:, (np.arange(wanted) + rotation) % BUCKETS]
                z[:, first : first + wanted] = signs[row * BUCKETS :][:wanted] * chosen
    return z


def make_vector(length: int, seed: int = 0) -> Tensor:
    """Return standard normal float32 values."""
    return torch.randn(length, generator=torch.Generator().manual_seed(seed))


def count_hidden(residual: Tensor, draws: int) -> int:
    """Return in how many draws all ten projections are below an eighth of the residual's norm."""
    limit = float(residual.double().norm()) / 8
    seeds = [expand(Context.EXPAND, index.to_bytes(4, "little"), 32) for index in range(draws)]
    projections = [Directions(seed, residual.numel()).project(residual, 0) for seed in seeds]
    return sum(bool((np.abs(values) < limit).all()) for values in projections)


def test_projection_is_the_inner_product_with_the_defined_direction() -> None:
    """The fold and its products equal a plain inner product with z, over several blocks and a short row."""
    vector = make_vector(ELEMENTS)
    expected = compute_directions_plainly(SEED, ELEMENTS, 10) @ vector.double().numpy()
    np.testing.assert_allclose(Directions(SEED, ELEMENTS).project(vector, 0), expected, rtol=1e-11, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, ELEMENTS), st.integers(0, ELEMENTS))
def test_slices_add_up_to_the_whole(one: int, other: int) -> None:
    """Wherever the vector is cut, projections of the slices sum to that of the whole: parts need no alignment."""
    vector, directions = make_vector(ELEMENTS), Directions(SEED, ELEMENTS, 3)
    cuts = [0, *sorted((one, other)), ELEMENTS]
    sums = sum(directions.project(vector[a:b], a) for a, b in pairwise(cuts))
    np.testing.assert_allclose(sums, directions.project(vector, 0), atol=1e-8)


def test_known_projection_is_the_same_on_every_machine() -> None:
    """A vector of small integers has an exact projection; a changed stream or fold changes these numbers."""
    vector = (torch.arange(3 * BUCKETS) % 7 - 3).float()
    assert Directions(SEED, 3 * BUCKETS + 100, 4).project(vector, 100).tolist() == KNOWN


def test_seeds_count() -> None:
    """Another seed gives other directions."""
    vector = make_vector(5000)
    assert not np.allclose(Directions(SEED, 5000).project(vector, 0), Directions(bytes(32), 5000).project(vector, 0))


def test_projection_is_linear() -> None:
    """Projections of a sum are the sums of the projections, up to float32 rounding of the sum."""
    one, other, directions = make_vector(10_000, 1), make_vector(10_000, 2), Directions(SEED, 10_000)
    combined = directions.project(2 * one - other, 0)
    np.testing.assert_allclose(combined, 2 * directions.project(one, 0) - directions.project(other, 0), atol=1e-3)


def test_mean_square_is_the_squared_norm() -> None:
    """Over many draws E[s^2] = ||v||^2, dense or sparse."""
    for vector in (make_vector(9000), torch.eye(9000)[4000] + torch.eye(9000)[4100]):
        draws = [Directions(index.to_bytes(32, "little"), 9000, 16).project(vector, 0) for index in range(100)]
        assert float(np.mean(np.square(draws))) == pytest.approx(float(vector.double().norm()) ** 2, rel=0.15)


def test_no_projection_exceeds_nine_norms() -> None:
    """The bound behind |s| > 9 norms is far from what any honest vector reaches."""
    vectors = (make_vector(9000), torch.ones(9000), torch.eye(9000)[3])
    draws = [Directions(index.to_bytes(32, "little"), 9000, 16).project(v, 0) for index in range(40) for v in vectors]
    norms = [float(v.double().norm()) for _ in range(40) for v in vectors]
    assert max(float(np.abs(s).max()) / norm for s, norm in zip(draws, norms, strict=True)) < PROJECTION_FACTOR * 0.7


def make_spikes(*spikes: tuple[int, float]) -> Tensor:
    """Return zeros with the given elements set."""
    vector = torch.zeros(3 * BUCKETS)
    for index, value in spikes:
        vector[index] = value
    return vector


@pytest.mark.parametrize(
    "residual",
    [
        pytest.param(make_vector(3 * BUCKETS), id="dense"),
        pytest.param(torch.ones(3 * BUCKETS), id="constant"),
        pytest.param(torch.ones(3 * BUCKETS) - 2 * (torch.arange(3 * BUCKETS) % 2), id="alternating"),
        pytest.param(make_spikes((17, 1e20)), id="one huge element"),
        pytest.param(make_spikes((17, 1.0), (17 + BUCKETS, -1.0)), id="two equal elements of one column"),
        pytest.param(make_spikes((17, 1.0), (18, 1.0)), id="two equal elements of one row"),
        pytest.param(make_spikes(*[(17 + row * BUCKETS, 1.0) for row in range(3)]), id="one column"),
        pytest.param(make_vector(3 * BUCKETS).sign() * (make_vector(3 * BUCKETS, 1) > 2), id="sparse signs"),
    ],
)
def test_no_shape_of_residual_hides(residual: Tensor) -> None:
    """Of 400 draws at most a few hide a residual, whatever its shape (proven: fewer than 0.19%)."""
    assert count_hidden(residual, 400) <= 4


def test_elements_of_one_bucket_cancel_only_half_the_time() -> None:
    """Two equal elements that do share a bucket survive the fold with probability 1/2: why rows are rotated."""
    survived = 0
    for index in range(200):
        directions = Directions(index.to_bytes(32, "little"), 2 * BUCKETS, 1)
        first, second = next(directions._blocks(0, 2 * BUCKETS)).rotations[:2]
        vector = make_spikes((5, 1.0), (BUCKETS + (5 + first - second) % BUCKETS, 1.0))[: 2 * BUCKETS]
        survived += bool(np.abs(directions.project(vector, 0)).max() > 0)
    assert 70 <= survived <= 130


def test_rows_together_equal_rows_alone_bit_for_bit() -> None:
    """The aggregator's reports of n rows have the bits that each peer finds alone."""
    rows, aggregate = [make_vector(9999, index) for index in range(5)], make_vector(9999, 9)
    directions = Directions(SEED, 30_000)
    projections, norms = compute_reports(directions, rows, aggregate, 50.0, 12_345)
    for row, s, norm in zip(rows, projections, norms, strict=True):
        alone, alone_norm = compute_report(directions, row.clone(), aggregate, 50.0, 12_345)
        assert alone.tobytes() == s.tobytes()
        assert alone_norm == norm
    together = directions.project_rows(rows, 3)
    assert all(directions.project(row, 3).tobytes() == s.tobytes() for row, s in zip(rows, together, strict=True))


@pytest.mark.parametrize("tau", [1.0, 1e9])
def test_report_is_of_the_clipped_difference(tau: float) -> None:
    """The s of a report project clip(g - ghat) with a float32 difference; the norm is that of the unclipped one."""
    gradient, aggregate = make_vector(ELEMENTS, 1), make_vector(ELEMENTS, 2)
    directions = Directions(SEED, ELEMENTS)
    s, norm = compute_report(directions, gradient, aggregate, tau, 0)
    difference = (gradient - aggregate).double()
    assert norm == pytest.approx(float(difference.norm()), rel=1e-12)
    clipped = (difference * min(1.0, tau / norm)).numpy()
    np.testing.assert_allclose(s, compute_directions_plainly(SEED, ELEMENTS, 10) @ clipped, rtol=1e-9, atol=1e-9 * tau)


def test_report_depends_on_the_float32_difference_alone() -> None:
    """Two columns with the same rounded differences have the same reports, bit for bit."""
    gradient, aggregate = make_vector(ELEMENTS, 1), 1000 * make_vector(ELEMENTS, 2)
    directions = Directions(SEED, ELEMENTS)
    s, norm = compute_report(directions, gradient, aggregate, 7.0, 0)
    other, other_norm = compute_report(directions, gradient - aggregate, torch.zeros(ELEMENTS), 7.0, 0)
    assert s.tobytes() == other.tobytes()
    assert norm == other_norm


def round_alike(length: int) -> tuple[Tensor, Tensor]:
    """Return slices whose exact difference 1 + 2^-24 is rounded as far as float32 can be off, always down."""
    return torch.ones(length), torch.full((length,), -HALF_ULP)


def round_as_it_comes(length: int) -> tuple[Tensor, Tensor]:
    """Return slices of noise, one of them much larger."""
    return make_vector(length, 1), 1e4 * make_vector(length, 2)


@pytest.mark.parametrize("make", [round_alike, round_as_it_comes])
@pytest.mark.parametrize("tau", [0.01, 1e9])
def test_rounding_a_difference_moves_a_report_by_no_more_than_allowed(
    make: Callable[[int], tuple[Tensor, Tensor]], tau: float
) -> None:
    """Against exact differences, s moves by at most 9 * 2^-24 of the clipped norm, the norm by 2^-24 of itself."""
    gradient, aggregate = make(ELEMENTS)
    exact = gradient.double().numpy() - aggregate.double().numpy()
    norm = float(np.linalg.norm(exact))
    s, reported = compute_report(Directions(SEED, ELEMENTS), gradient, aggregate, tau, 0)
    moved = s - compute_directions_plainly(SEED, ELEMENTS, 10) @ (exact * min(1.0, tau / norm))
    assert np.abs(moved).max() <= PROJECTION_FACTOR * (HALF_ULP + ROUNDING) * min(norm, tau)
    assert abs(reported - norm) <= (HALF_ULP + ROUNDING) * norm


def test_differences_that_round_alike_are_within_the_tolerance_of_sums() -> None:
    """Sixteen rows that lose the same half unit leave a sum that rounding of float64 would not explain."""
    gradient, aggregate = round_alike(ELEMENTS)
    exact = (gradient.double() - aggregate.double()).numpy()
    tau = 2 * float(np.linalg.norm(exact))
    projections, _ = compute_reports(Directions(SEED, ELEMENTS), [gradient] * 16, aggregate, tau, 0)
    lost = float(np.abs(projections.sum(axis=0) - 16 * (compute_directions_plainly(SEED, ELEMENTS, 10) @ exact)).max())
    assert 9 * 16 * ROUNDING * tau < lost <= compute_sum_tolerance(0.0, tau, 16)


def make_column(peers: int, scale: float) -> list[Tensor]:
    """Return honest rows of norm about 1 and a third of outliers."""
    honest = [make_vector(20_000, index) / 20_000**0.5 for index in range(peers)]
    return [row * scale if index < peers // 3 else row for index, row in enumerate(honest)]


@pytest.mark.parametrize(("tau", "scale"), [(0.01, 1.0), (0.5, 1e3), (10.0, 1e6), (1.0, 1e9)])
def test_sum_of_honest_reports_is_within_the_tolerance(tau: float, scale: float) -> None:
    """An honest column always passes Verification 1, and its tolerance stays below 0.01 tau."""
    rows = make_column(12, scale)
    clipped = compute_centered_clip(rows, tau, 1e-6)
    bound = compute_residual_bound(float(clipped.aggregate.double().norm()), len(rows), tau, 1e-6)
    tolerance = compute_sum_tolerance(bound, tau, len(rows))
    projections, _ = compute_reports(Directions(SEED, 20_000), rows, clipped.aggregate, tau, 0)
    assert float(np.abs(projections.sum(axis=0)).max()) <= tolerance <= 0.01 * tau


def test_sum_shows_a_wrong_aggregate() -> None:
    """An aggregate moved by a tenth of tau along any one element exceeds the tolerance."""
    rows = make_column(12, 100.0)
    clipped = compute_centered_clip(rows, 1.0, 1e-6)
    wrong = clipped.aggregate.clone()
    wrong[123] += 0.1
    bound = compute_residual_bound(float(wrong.double().norm()), len(rows), 1.0, 1e-6)
    projections, _ = compute_reports(Directions(SEED, 20_000), rows, wrong, 1.0, 0)
    assert float(np.abs(projections.sum(axis=0)).max()) > 100 * compute_sum_tolerance(bound, 1.0, len(rows))


def test_tolerances_of_reports_are_rounding_only() -> None:
    """A report's tolerance follows the smaller of norm and tau and is far below the recomputation tolerance of 1e-4."""
    assert compute_report_tolerance(5.0, 1.0) == compute_report_tolerance(1.0, 5.0) < 1e-7
    assert 0 < compute_norm_tolerance(5.0) < 1e-7
    assert compute_sum_tolerance(1.0, 1.0, 16) == 0.01


def test_empty_slices_project_to_zero() -> None:
    """An empty part has zero reports and zero norms, wherever it lies."""
    directions = Directions(SEED, 1000)
    s, norm = compute_report(directions, torch.empty(0), torch.empty(0), 0.0, 100)
    assert s.tolist() == [0.0] * 10
    assert norm == 0.0


def test_slices_outside_the_vector_are_refused() -> None:
    """Wrong types, unequal lengths and positions outside the vector raise ValueError."""
    directions = Directions(SEED, 10)
    for vector, start in ((torch.zeros(5), 6), (torch.zeros(5), -1), (torch.zeros(5, dtype=torch.float64), 0)):
        with pytest.raises(ValueError, match=r"not within|expected a flat"):
            directions.project(vector, start)
    with pytest.raises(ValueError, match="expected a flat"):
        compute_report(directions, torch.zeros(5), torch.zeros(4), 1.0, 0)
    with pytest.raises(ValueError, match="seed of 32 bytes"):
        Directions(b"short", 10)
