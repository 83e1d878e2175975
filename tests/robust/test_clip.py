"""CenteredClip finds its fixed point, in the Gram form as by direct iteration, whatever a minority sends."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from btard.robust import (
    Clipped,
    clip,
    compute_centered_clip,
    compute_centered_clip_reference,
    compute_mean,
    compute_residual,
    compute_residual_bound,
    find_non_finite,
)
from btard.robust.blocks import compute_block_size, iterate_blocks
from btard.robust.clip import MAX_PASSES

EPSILON = 1e-6


def make_rows(
    peers: int, byzantine: int = 0, length: int = 3000, scale: float = 1.0, offset: float = 0.0, seed: int = 0
) -> list[Tensor]:
    """Return honest rows (mean and noise of norm 1, ``offset`` away from the origin), then colluding ones."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(peers + 3, length, generator=generator) / length**0.5
    rows = [noise[-1] + offset * noise[-2] + noise[index] for index in range(peers - byzantine)]
    return rows + [scale * (noise[-3] * (1 + index / 10)) for index in range(byzantine)]


def compute_bound(clipped: Clipped, rows: list[Tensor], tau: float) -> float:
    """Return the residual that Verification 1 allows this aggregate."""
    return compute_residual_bound(float(clipped.aggregate.double().norm()), len(rows), tau, EPSILON)


def compute_plain_residual(rows: list[Tensor], aggregate: Tensor, tau: float) -> float:
    """Return the residual by its formula, on float64 copies."""
    differences = torch.stack(rows).double() - aggregate.double()
    norms = differences.norm(dim=1, keepdim=True).clamp(min=1e-300)
    return float((differences * (tau / norms).clamp(max=1)).sum(dim=0).norm())


@pytest.mark.parametrize(
    ("peers", "share", "scale", "tau", "offset"),
    [
        *product((8, 16), (0.0, 0.45), (1.0, 1e6, 1e9), (0.01, 1.0, 10.0), (0.0,)),
        *product((16,), (0.45,), (1e6,), (0.01, 1.0), (1000.0,)),
    ],
)
def test_residual_is_within_what_verification_1_allows(
    peers: int, share: float, scale: float, tau: float, offset: float
) -> None:
    """Up to 45% colluders, outliers to 1e9, small tau, rows 1000 tau from the origin: the float32 result passes."""
    rows = make_rows(peers, int(share * peers), scale=scale, offset=offset * tau)
    clipped = compute_centered_clip(rows, tau, EPSILON)
    assert compute_plain_residual(rows, clipped.aggregate, tau) <= compute_bound(clipped, rows, tau)
    assert clipped.residual == pytest.approx(compute_plain_residual(rows, clipped.aggregate, tau), abs=1e-9 * tau)


@pytest.mark.parametrize(("byzantine", "scale", "tau"), [*product((0, 3, 7), (1.0, 1e6), (0.1, 1.0))])
def test_gram_form_equals_direct_iteration(byzantine: int, scale: float, tau: float) -> None:
    """The fast form and the float64 direct iteration agree to a small fraction of tau, and count the same rows."""
    rows = make_rows(16, byzantine, scale=scale)
    fast, plain = compute_centered_clip(rows, tau, EPSILON), compute_centered_clip_reference(rows, tau, EPSILON)
    assert float((fast.aggregate.double() - plain.aggregate.double()).norm()) <= 1e-4 * tau
    assert fast.clipped == plain.clipped


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 50), st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_any_small_problem_converges(peers: int, length: int, tau: float, seed: int) -> None:
    """Few rows, few coordinates, any tau: the residual is within the bound."""
    rows = make_rows(peers, (peers - 1) // 3, length, scale=100.0, seed=seed)
    clipped = compute_centered_clip(rows, tau, EPSILON)
    assert clipped.residual <= compute_bound(clipped, rows, tau)


def test_a_minority_moves_the_result_by_a_bounded_amount() -> None:
    """7 of 16 rows of length 1e9 shift the result by less than tau * b / (n - b), honest rows being unclipped."""
    rows = make_rows(16, 7, scale=1e9)
    clipped = compute_centered_clip(rows, 10.0, EPSILON)
    assert float((clipped.aggregate - compute_mean(rows[:9])).norm()) <= 10.0 * 7 / 9 * 1.001
    assert clipped.clipped == 7


def test_unclipped_rows_give_their_mean() -> None:
    """With a tau beyond every distance, CenteredClip is the mean and clips nobody."""
    rows = make_rows(8)
    clipped = compute_centered_clip(rows, 1e3, EPSILON)
    torch.testing.assert_close(clipped.aggregate, compute_mean(rows))
    assert clipped.clipped == 0


def test_rows_of_any_finite_size_are_handled() -> None:
    """Rows of 1e25, whose squares overflow float32, are clipped like any outlier."""
    rows = make_rows(8, 3, scale=1e25)
    clipped = compute_centered_clip(rows, 10.0, EPSILON)
    assert clipped.residual <= compute_bound(clipped, rows, 10.0)
    assert clipped.clipped == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e30])
def test_rows_that_are_not_finite_are_named(value: float) -> None:
    """Exactly the rows with NaN, an infinity or an element beyond 1e30 are named, by all entrances."""
    rows = make_rows(5)
    rows[1][7], rows[4][0] = value, value
    assert find_non_finite(rows) == (1, 4)
    for function in (compute_centered_clip, compute_centered_clip_reference):
        with pytest.raises(ValueError, match="rows 1, 4 hold NaN"):
            function(rows, 1.0, EPSILON)


def test_elements_of_exactly_1e30_are_finite() -> None:
    """The bound itself is allowed; a peer flags overflow only beyond it."""
    assert find_non_finite([torch.tensor([1e30, -1e30]), torch.empty(0)]) == ()


def test_an_empty_part_has_an_empty_aggregate() -> None:
    """With fewer chunks than members a part has no elements: nothing to clip, no residual."""
    rows = [torch.empty(0)] * 4
    clipped = compute_centered_clip(rows, 0.0, EPSILON)
    assert (clipped.aggregate.numel(), clipped.residual, clipped.clipped) == (0, 0.0, 0)
    assert compute_residual(rows, clipped.aggregate, 0.0) == 0.0
    assert compute_mean(rows).numel() == 0


def test_one_row_is_its_own_aggregate() -> None:
    """With one contributor the aggregate is its row, bit for bit."""
    (row,) = make_rows(1)
    clipped = compute_centered_clip([row], 0.1, EPSILON)
    assert torch.equal(clipped.aggregate, row)
    assert clipped.residual == 0.0


def test_equal_rows_are_their_own_aggregate() -> None:
    """All distances zero: no division by zero, no movement."""
    row = make_rows(1)[0]
    clipped = compute_centered_clip([row] * 6, 0.1, EPSILON)
    torch.testing.assert_close(clipped.aggregate, row)
    assert clipped.residual <= compute_bound(clipped, [row] * 6, 0.1)


def test_all_rows_clipped_and_collinear_still_end() -> None:
    """The one case without a unique fixed point: any point between the middle rows will do."""
    direction = make_rows(1)[0]
    rows = [position * direction for position in (-10.0, -9.0, 9.0, 10.0)]
    clipped = compute_centered_clip(rows, 0.01, EPSILON)
    assert clipped.residual <= compute_bound(clipped, rows, 0.01)


def test_equal_input_gives_equal_bits_and_rows_stay_untouched() -> None:
    """Two runs agree bit for bit, on slices of a larger buffer as on copies, and change no row."""
    whole = torch.stack(make_rows(16, 7, length=200_000, scale=50.0))
    slices = [row[1000:150_001] for row in whole]
    copies = [row.clone() for row in slices]
    first, second = compute_centered_clip(slices, 0.5, EPSILON), compute_centered_clip(copies, 0.5, EPSILON)
    assert torch.equal(first.aggregate, second.aggregate)
    assert first.residual == second.residual
    assert all(torch.equal(one, other) for one, other in zip(slices, copies, strict=True))


def test_several_blocks_and_a_short_last_one_are_read_in_order() -> None:
    """Rows longer than a block come back complete and in float64."""
    rows = [torch.arange(150_000.0), -torch.arange(150_000.0)]
    blocks = [(where, block.clone()) for where, block in iterate_blocks(rows)]
    assert len(blocks) == -(-150_000 // compute_block_size(2))
    assert torch.equal(torch.cat([block for _, block in blocks], dim=1), torch.stack(rows).double())
    assert [where.start for where, _ in blocks][1:] == [where.stop for where, _ in blocks][:-1]


def test_residual_sees_a_wrong_aggregate() -> None:
    """An aggregate moved by a hundredth of tau leaves a residual far beyond the bound."""
    rows = make_rows(8)
    clipped = compute_centered_clip(rows, 1.0, EPSILON)
    wrong = clipped.aggregate.clone()
    wrong[5] += 0.01
    residual = compute_residual(rows, wrong, 1.0)
    assert residual == pytest.approx(compute_plain_residual(rows, wrong, 1.0), rel=1e-9)
    assert residual > 100 * compute_bound(clipped, rows, 1.0)


def test_residual_of_a_row_that_is_not_finite_is_nan() -> None:
    """Nothing compares below a bound when a row is NaN."""
    rows = make_rows(3)
    rows[0][0] = math.nan
    assert math.isnan(compute_residual(rows, rows[1], 1.0))


@pytest.mark.parametrize(
    "rows",
    [[], [torch.zeros(3), torch.zeros(4)], [torch.zeros(3, dtype=torch.float64)], [torch.zeros(2, 2)]],
)
def test_rows_of_the_wrong_shape_are_refused(rows: list[Tensor]) -> None:
    """No rows, unequal lengths, other types and shapes raise ValueError."""
    with pytest.raises(ValueError, match="row"):
        compute_centered_clip(rows, 1.0, EPSILON)


@pytest.mark.parametrize(("tau", "epsilon"), [(0.0, 1e-6), (-1.0, 1e-6), (math.nan, 1e-6), (1.0, 0.0), (math.inf, 0.1)])
def test_a_radius_that_clips_nothing_or_everything_is_refused(tau: float, epsilon: float) -> None:
    """Radius and epsilon must be positive numbers."""
    with pytest.raises(ValueError, match="must be positive"):
        compute_centered_clip(make_rows(2), tau, epsilon)


def test_few_passes_suffice_far_from_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 1000 tau away need the Gram matrix once more, not more passes than two."""
    passes = count_calls(monkeypatch, "_compute_output")
    compute_centered_clip(make_rows(16, 7, scale=1e6, offset=1000.0), 1.0, EPSILON)
    assert len(passes) <= 3 < MAX_PASSES


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Return a list that grows by one whenever the function of CenteredClip with this name is called."""
    calls: list[int] = []
    function = getattr(clip, name)
    monkeypatch.setattr(clip, name, lambda *args: calls.append(1) or function(*args))
    return calls


@pytest.mark.parametrize(("error", "passes"), [(0.0, 0), (4e-7, 0), (1e-4, 1)])
@pytest.mark.parametrize("byzantine", [0, 7])
def test_weights_foreseen_wrong_leave_the_residual_right(
    monkeypatch: pytest.MonkeyPatch, error: float, passes: int, byzantine: int
) -> None:
    """Whatever weights the pass that writes the aggregate was given, the residual is that of the true distances."""
    rows = make_rows(16, byzantine, length=20_000, scale=100.0)
    wrong = 1 + error * (1 - 2 * (np.arange(16) % 2))
    compute_output = clip._compute_output
    monkeypatch.setattr(
        clip, "_compute_output", lambda rows, c, weights, out: compute_output(rows, c, weights * wrong, out)
    )
    calls = count_calls(monkeypatch, "_sum_clipped")
    clipped = compute_centered_clip(rows, 0.5, EPSILON)
    assert clipped.residual == pytest.approx(compute_plain_residual(rows, clipped.aggregate, 0.5), abs=1e-9 * 0.5)
    assert len(calls) == passes


@pytest.mark.parametrize("distance", [1e4, 1e8])
def test_half_of_the_rows_far_away_do_not_take_the_aggregate_along(distance: float) -> None:
    """Without a majority every point between is nearly a fixed point: the search starts at the shorter rows."""
    generator = torch.Generator().manual_seed(1)
    honest = list(torch.randn(3, 200, generator=generator) / 200**0.5)
    direction = torch.nn.functional.normalize(torch.randn(200, generator=generator), dim=0)
    for rows in ([*honest, *[distance * direction] * 3], [*[distance * direction] * 3, *honest]):
        assert compute_centered_clip(rows, 1.0, EPSILON).aggregate.norm() < 300


@pytest.mark.parametrize("place", [0, 5, 15])
@pytest.mark.parametrize("distance", [1e5, 1e8])
def test_a_row_that_lies_far_away_costs_one_pass_wherever_it_stands(
    place: int, distance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products around it say nothing of the others: they are taken around one of these then, before anything else."""
    rows = make_rows(15, length=20_000)
    rows.insert(place, torch.full((20_000,), distance))
    grams, outputs = count_calls(monkeypatch, "_compute_gram"), count_calls(monkeypatch, "_compute_output")
    clipped = compute_centered_clip(rows, 1.0, EPSILON)
    assert clipped.residual == pytest.approx(compute_plain_residual(rows, clipped.aggregate, 1.0), abs=1e-6)
    assert (len(grams), len(outputs)) == (2 if place == 0 else 1, 1)


def test_room_of_another_length_is_refused() -> None:
    """The loops would write beyond it."""
    with pytest.raises(ValueError, match="float32 CPU vector"):
        compute_centered_clip(make_rows(3), 1.0, EPSILON, torch.empty(7))
