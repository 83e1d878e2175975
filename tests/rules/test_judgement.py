"""Judgement of an opened column, on small tensors (attacks A9, B5)."""

import pytest
import torch
from tests.rules.build import make_config, make_part, make_peers
from torch import Tensor

from btard.identity import PeerId
from btard.robust import Directions, compute_centered_clip
from btard.rules.checks import find_unbalanced_part
from btard.rules.judgement import Column, compute_part_report, find_liars, is_wrong_aggregate, read_committed
from btard.rules.messages import Report

CONFIG = make_config()
PEERS = make_peers(6)
PART = make_part(CONFIG, 0, PEERS[0], 16, 48)
DIRECTIONS = Directions(b"r" * 32, CONFIG.elements, CONFIG.projections)
BROKEN = (float("nan"), float("inf"), -float("inf"), 3e38)


def make_slices(seed: int = 0) -> dict[PeerId, Tensor]:
    """Six gradients, one of them far away."""
    generator = torch.Generator().manual_seed(seed)
    slices = {peer: torch.randn(PART.elements, generator=generator) for peer in PEERS}
    return slices | {PEERS[5]: slices[PEERS[5]] * -1000}


def make_column(slices: dict[PeerId, Tensor], aggregate: Tensor | None = None) -> Column:
    """The column as an honest aggregator reduces it, or with another aggregate."""
    if aggregate is None:
        rows = [read_committed(values) for values in slices.values()]
        aggregate = compute_centered_clip(rows, PART.tau, CONFIG.epsilon).aggregate
    return Column(PART, slices, aggregate, float(torch.linalg.vector_norm(read_committed(aggregate).double())))


def make_reports(column: Column) -> dict[PeerId, Report]:
    """What honest contributors report on a column."""
    aggregate = read_committed(column.aggregate)
    return {peer: compute_part_report(DIRECTIONS, PART, values, aggregate) for peer, values in column.slices.items()}


def is_balanced(column: Column) -> bool:
    """Whether Verification 1 lets honest reports on this column pass."""
    reports = {peer: (report,) for peer, report in make_reports(column).items()}
    return find_unbalanced_part(CONFIG, [PART], reports, [column.aggregate_norm]) is None


@pytest.mark.parametrize("seed", range(5))
def test_honest_column_is_right_in_every_respect(seed: int) -> None:
    """CenteredClip's own result passes Verification 1 and judgement, and nobody lied."""
    column = make_column(make_slices(seed))
    assert is_balanced(column)
    assert not is_wrong_aggregate(CONFIG, column)
    assert find_liars(column, DIRECTIONS, make_reports(column)) == ()


@pytest.mark.parametrize("name", ["mean", "zeros", "shifted", "one coordinate", "a row"])
def test_wrong_aggregate_is_found(name: str) -> None:
    """The mean, zeros, a shift, one changed coordinate, a favourite row: each fails Verification 1 and is convicted."""
    slices = make_slices()
    honest = make_column(slices).aggregate
    changed = honest.clone()
    changed[7] += 0.05
    wrong = {
        "mean": torch.stack(list(slices.values())).mean(0),
        "zeros": torch.zeros(PART.elements),
        "shifted": honest + 0.01,
        "one coordinate": changed,
        "a row": slices[PEERS[0]],
    }[name]
    column = make_column(slices, wrong)
    assert not is_balanced(column)
    assert is_wrong_aggregate(CONFIG, column)
    assert find_liars(column, DIRECTIONS, make_reports(column)) == ()


def test_aggregate_without_some_contributors_is_wrong() -> None:
    """An aggregator cannot choose its contributors: leaving honest ones out is a wrong aggregate (attacks A4)."""
    slices = make_slices()
    chosen = make_column({peer: slices[peer] for peer in PEERS[3:]}).aggregate
    column = make_column(slices, chosen)
    assert not is_balanced(column)
    assert is_wrong_aggregate(CONFIG, column)


def test_any_aggregate_within_the_residual_is_right() -> None:
    """The aggregate itself is never compared: rounding differences between machines are no crime."""
    slices = make_slices()
    honest = make_column(slices).aggregate
    assert not is_wrong_aggregate(CONFIG, make_column(slices, torch.nextafter(honest, honest + 1)))


@pytest.mark.parametrize("change", [1e-3, -1.0, 1e9])
def test_liar_is_found_and_nobody_else(change: float) -> None:
    """A forged projection or norm names its author, whoever else reported."""
    column = make_column(make_slices())
    truth = make_reports(column)
    first, *others = truth[PEERS[2]].projections
    for lie in (
        Report((first + change, *others), truth[PEERS[2]].norm),
        Report(truth[PEERS[2]].projections, truth[PEERS[2]].norm + abs(change)),
    ):
        assert find_liars(column, DIRECTIONS, truth | {PEERS[2]: lie}) == (PEERS[2],)


def test_colluder_that_balances_a_wrong_aggregate_is_found_in_the_open_column() -> None:
    """Cancelling the residual of a wrong aggregate passes Verification 1, but an opened column shows both (A1)."""
    column = make_column(make_slices(), make_column(make_slices()).aggregate + 0.02)
    truth = make_reports(column)
    sums = [sum(report.projections[k] for report in truth.values()) for k in range(CONFIG.projections)]
    cover = Report(
        tuple(value - total for value, total in zip(truth[PEERS[1]].projections, sums, strict=True)),
        truth[PEERS[1]].norm,
    )
    covered = truth | {PEERS[1]: cover}
    reports = {peer: (report,) for peer, report in covered.items()}
    assert find_unbalanced_part(CONFIG, [PART], reports, [column.aggregate_norm]) is None
    assert is_wrong_aggregate(CONFIG, column)
    assert find_liars(column, DIRECTIONS, covered) == (PEERS[1],)


@pytest.mark.parametrize("value", BROKEN)
def test_aggregate_that_is_not_finite_is_wrong_and_blames_no_reporter(value: float) -> None:
    """A NaN under a signed root counts as zeros: honest reports stay well-formed and true, the aggregator is guilty."""
    aggregate = make_column(make_slices()).aggregate.clone()
    aggregate[3] = value
    column = make_column(make_slices(), aggregate)
    reports = make_reports(column)
    assert all(abs(entry) < 1e9 for report in reports.values() for entry in (*report.projections, report.norm))
    assert not is_balanced(column)
    assert is_wrong_aggregate(CONFIG, column)
    assert find_liars(column, DIRECTIONS, reports) == ()


@pytest.mark.parametrize("value", BROKEN)
def test_slice_that_is_not_finite_spoils_nobody_elses_column(value: float) -> None:
    """A contributor's NaN counts as zeros for aggregator, reporter and judge alike (attacks B5)."""
    slices = make_slices()
    slices[PEERS[4]][0] = value
    column = make_column(slices)
    assert is_balanced(column)
    assert not is_wrong_aggregate(CONFIG, column)
    assert find_liars(column, DIRECTIONS, make_reports(column)) == ()


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e30])
def test_finite_values_count_as_they_are(scale: float) -> None:
    """Nothing that an honest peer may commit to is changed."""
    values = torch.full((4,), scale)
    assert read_committed(values) is values


def test_empty_part_is_right() -> None:
    """With fewer chunks than members there is nothing to judge."""
    empty = make_part(CONFIG, 0, PEERS[0], 0, 0)
    assert not is_wrong_aggregate(CONFIG, Column(empty, {}, torch.empty(0), 0.0))


def test_rows_that_are_all_far_apart_still_have_a_right_aggregate() -> None:
    """Rows at 10^6 tau, one of them an attacker's: the honest aggregate is within its bound (attacks A9)."""
    generator = torch.Generator().manual_seed(3)
    slices = {peer: torch.randn(PART.elements, generator=generator) * 1e3 for peer in PEERS}
    slices[PEERS[5]] = slices[PEERS[5]] * 1e3
    column = make_column(slices)
    assert is_balanced(column)
    assert not is_wrong_aggregate(CONFIG, column)


def test_nobody_is_guilty_of_what_float32_cannot_hold() -> None:
    """Slices millions of radii long leave a residual beyond every bound: the honest aggregate is right, others not."""
    common = torch.full((PART.elements,), 3e6 * PART.tau)
    column = make_column({peer: common + 3 * PART.tau * values for peer, values in make_slices().items()})
    assert not is_balanced(column)
    assert not is_wrong_aggregate(CONFIG, column)
    assert is_wrong_aggregate(CONFIG, make_column(dict(column.slices), column.aggregate + 4 * PART.tau))


@pytest.mark.parametrize("value", [*BROKEN, 1.0000001e30, 1e30, 9.9e29, -1e22, 1e4])
@pytest.mark.parametrize("aggregate", [0.0, 1.0, 9.99e29, -1e30])
def test_reports_are_of_values_as_they_count(value: float, aggregate: float) -> None:
    """Whether a slice counts need not be asked first: the same numbers come out, to the last bit."""
    gradient, common = torch.ones(PART.elements), torch.full((PART.elements,), aggregate)
    gradient[7], common[7] = value, read_committed(torch.tensor([value]))[0]
    for against in (common, torch.full((PART.elements,), aggregate)):
        found = compute_part_report(DIRECTIONS, PART, gradient, against)
        assert found == compute_part_report(DIRECTIONS, PART, read_committed(gradient), against)
