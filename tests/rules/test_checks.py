"""Verifications 1 to 3 on reports alone (attacks A4, B3, B4, B7)."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.rules.build import CHECK, make_config, make_part, make_peers, make_transcript

from btard.identity import PeerId
from btard.robust import PROJECTION_FACTOR, compute_norm_tolerance, compute_report_tolerance
from btard.rules.checks import (
    Recomputation,
    compute_residual_limit,
    find_false_parts,
    find_false_reports,
    find_loud_contributors,
    find_suspicious_part,
    find_unbalanced_part,
    is_near_report,
    is_same_report,
    is_well_formed,
    read_reports,
)
from btard.rules.messages import Check, Report
from btard.rules.parts import Part

CONFIG = make_config()  # tau 1 and delta 4 for a chunk of 4
PEERS = make_peers(4)
PARTS = tuple(make_part(CONFIG, index, peer, 16 * index, 16 * index + 16) for index, peer in enumerate(PEERS))
TAU = PARTS[0].tau
NORMS = (1.0,) * 4
ROOT, OTHER_ROOT = b"a" * 32, b"b" * 32


def make_reports(*columns: tuple[float, ...]) -> dict[PeerId, tuple[Report, ...]]:
    """Reports with one projection: one column per part, one value per peer, norms of 1."""
    padded = [*columns, *((0.0,) * len(PEERS),) * (len(PARTS) - len(columns))]
    return {peer: tuple(Report((column[n],), 1.0) for column in padded) for n, peer in enumerate(PEERS)}


# --- form ---


@pytest.mark.parametrize(
    ("reports", "good"),
    [
        ((Report((0.5, -0.5), 1.0),) * 4, True),
        ((Report((0.5, -0.5), 0.0),) * 4, True),
        ((Report((0.5, -0.5), 1.0),) * 3, False),
        ((Report((0.5, -0.5), 1.0),) * 5, False),
        ((Report((0.5,), 1.0),) * 4, False),
        ((Report((0.5, -0.5, 0.0), 1.0),) * 4, False),
        ((Report((math.nan, 0.0), 1.0),) * 4, False),
        ((Report((math.inf, 0.0), 1.0),) * 4, False),
        ((Report((1e300, 0.0), 1.0),) * 4, False),
        ((Report((0.0, 0.0), math.nan),) * 4, False),
        ((Report((0.0, 0.0), math.inf),) * 4, False),
        ((Report((0.0, 0.0), -1.0),) * 4, False),
        ((), False),
    ],
    ids=str,
)
def test_form_of_reports(reports: tuple[Report, ...], good: bool) -> None:
    """One report for every part, k projections each, numbers that finite gradients can give."""
    assert is_well_formed(reports, 4, 2) is good


@given(st.lists(st.floats(), min_size=4, max_size=4))
def test_no_well_formed_report_overflows_a_sum(values: list[float]) -> None:
    """Whatever passes the form can be summed: a cheat cannot make the check itself fail."""
    reports = make_reports(tuple(values))
    assume(all(is_well_formed(row, 4, 1) for row in reports.values()))
    find_unbalanced_part(CONFIG, PARTS, reports, NORMS)
    find_suspicious_part(PARTS, reports, 1)


def test_largest_well_formed_reports_do_not_overflow() -> None:
    """The edge of the form itself."""
    reports = make_reports((1e100,) * 4)
    assert all(is_well_formed(row, 4, 1) for row in reports.values())
    assert find_unbalanced_part(CONFIG, PARTS, reports, NORMS) == 0


# --- Verification 1 ---


def test_projections_that_cancel_exactly_are_balanced() -> None:
    """The sums are exact: large values of opposite sign leave nothing, in any order."""
    column = (1e15, 1.0, -1e15, -1.0)
    assert sum(column) == 0.0 or math.fsum(column) == 0.0
    assert find_unbalanced_part(CONFIG, PARTS, make_reports(column), NORMS) is None
    assert find_unbalanced_part(CONFIG, PARTS, make_reports((1e16, 1.0, 1.0, -1e16)), NORMS) == 0


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        (((0.5, 0.5, -1.0, 0.0),), None),
        (((0.0,) * 4, (0.1, 0.0, 0.0, 0.0)), 1),
        (((0.0,) * 4, (0.1, 0.0, 0.0, 0.0), (5.0,) * 4), 1),
        (((-5.0,) * 4, (0.1, 0.0, 0.0, 0.0)), 0),
    ],
)
def test_lowest_part_whose_sum_is_off_is_opened(columns: tuple, part: int | None) -> None:
    """Verification 1 names a part, the lowest, and only beyond the tolerance."""
    assert find_unbalanced_part(CONFIG, PARTS, make_reports(*columns), NORMS) == part


@given(st.floats(-2.0, 2.0), st.integers(0, 3))
def test_sum_is_tolerated_exactly_up_to_nine_residuals(factor: float, index: int) -> None:
    """The tolerance is nine times what the stop rule leaves, plus rounding; both signs alike."""
    tolerance = compute_residual_limit(CONFIG, PARTS[0], len(PEERS), 1.0)
    assume(abs(abs(factor) - 1) > 1e-9)
    column = tuple(factor * tolerance if n == index else 0.0 for n in range(4))
    assert (find_unbalanced_part(CONFIG, PARTS, make_reports(column), NORMS) is None) == (abs(factor) < 1)


def test_tolerance_of_sums_is_what_an_honest_aggregator_may_leave() -> None:
    """Nine times epsilon·tau and the float32 rounding of aggregate and differences: less would convict honest peers."""
    left = CONFIG.epsilon * TAU + len(PEERS) * 2.0**-24 * (1.0 + TAU)
    limit = compute_residual_limit(CONFIG, PARTS[0], len(PEERS), 1.0)
    assert 9 * left <= limit <= 9.05 * left


@given(st.floats(0, 1e90))
def test_claimed_norm_of_an_aggregate_buys_no_tolerance_beyond_the_cap(norm: float) -> None:
    """However large an aggregate claims to be, a sum of a hundredth of tau opens its column (attacks A9)."""
    assert compute_residual_limit(CONFIG, PARTS[0], len(PEERS), norm) <= 0.01 * TAU
    column = (0.0101 * TAU, 0.0, 0.0, 0.0)
    assert find_unbalanced_part(CONFIG, PARTS, make_reports(column), (norm,) * 4) == 0


def test_sum_runs_over_all_contributors() -> None:
    """The contributors are the round's, not the aggregator's choice: dropping one report unbalances (attacks A4)."""
    reports = make_reports((0.3, 0.3, -0.3, -0.3))
    assert find_unbalanced_part(CONFIG, PARTS, reports, NORMS) is None
    assert find_unbalanced_part(CONFIG, PARTS, {peer: reports[peer] for peer in PEERS[1:]}, NORMS) == 0
    checks = make_transcript(CHECK, {peer: Check(reports[peer], b"n" * 32) for peer in PEERS})
    assert read_reports(checks, PEERS[1:]) == {peer: reports[peer] for peer in PEERS[1:]}


# --- naming ---


def test_aggregator_names_false_reports_and_no_others() -> None:
    """One lie in every column names one liar per aggregator instead of opening all columns (attacks B3)."""
    truth = {peer: Report((0.25,), 1.0) for peer in PEERS}
    claimed = {peer: (Report((0.25,), 1.0),) * 4 for peer in PEERS} | {PEERS[2]: (Report((1.25,), 1.0),) * 4}
    for part in PARTS:
        assert find_false_reports(claimed, truth, part) == (PEERS[2],)


@given(st.floats(1e-6, 1e12), st.floats(-1, 1), st.floats(-3, 3), st.floats(-1, 1))
def test_honest_namer_never_loses(norm: float, share: float, shift: float, rounding: float) -> None:
    """What an aggregator names beyond twice the rounding, voters with their own rounding convict."""
    truth = Report((share * min(norm, TAU),), norm)
    unit = compute_report_tolerance(norm, TAU)
    claimed = Report((truth.projections[0] + shift * unit,), norm + shift * compute_norm_tolerance(norm))
    # A voter's own recomputation differs from the namer's by a tenth of the tolerance at most.
    voter = Report(
        (truth.projections[0] + 0.1 * rounding * unit,), norm + 0.1 * rounding * compute_norm_tolerance(norm)
    )
    if not is_same_report(claimed, truth, TAU, 2.0):
        assert not is_same_report(claimed, voter, TAU, 1.0)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e6, 1e12, 1e30])
def test_rounding_of_large_norms_is_no_lie(norm: float) -> None:
    """A huge aggregate makes every norm huge; float64 rounding of it convicts nobody."""
    truth = Report((0.5 * min(norm, TAU),), norm)
    assert is_same_report(Report(truth.projections, norm * (1 + 1e-12)), truth, TAU)
    assert not is_same_report(Report(truth.projections, norm * (1 + 1e-6)), truth, TAU)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_claims_are_false(value: float) -> None:
    """No comparison with NaN passes for agreement."""
    truth = Report((0.0,), 1.0)
    assert not is_same_report(Report((value,), 1.0), truth, TAU)
    assert not is_near_report(Report((0.0,), value), truth, TAU, 1.0)


# --- Verification 2 ---


def make_norms(*norms: float, part: int = 1) -> dict[PeerId, tuple[Report, ...]]:
    """Reports with these norms on one part and small ones elsewhere."""
    return {
        peer: tuple(Report((0.0,), norm if part == index else 1.0) for index in range(4))
        for peer, norm in zip(make_peers(len(norms)), norms, strict=True)
    }


LOUD = PARTS[1].delta * 1.01


@pytest.mark.parametrize(
    ("contributors", "tolerated", "loud", "opened"),
    [
        (7, 3, 4, True),
        (7, 3, 3, False),
        (15, 7, 8, True),  # the majority rule of the paper
        (15, 7, 7, False),
        (14, 7, 7, True),  # odd n, b = f: seven honest of fourteen are enough (attacks B4b)
        (14, 7, 6, False),
        (4, 0, 4, True),
        (4, 0, 3, False),
        (3, 3, 1, True),
        (3, 3, 0, False),  # never without a single loud report
    ],
)
def test_column_opens_when_all_but_f_report_a_large_norm(
    contributors: int, tolerated: int, loud: int, opened: bool
) -> None:
    """At least C-f contributors above the bound open a column (attacks B4)."""
    reports = make_norms(*[LOUD] * loud, *[1.0] * (contributors - loud))
    assert find_suspicious_part(PARTS, reports, tolerated) == (1 if opened else None)
    assert find_loud_contributors(reports, PARTS[1]) == make_peers(contributors)[:loud]


def test_norm_at_the_bound_is_not_loud() -> None:
    """Above the bound means above."""
    assert find_loud_contributors(make_norms(PARTS[1].delta, LOUD), PARTS[1]) == make_peers(2)[1:]


def test_exempt_part_stays_closed_and_another_opens() -> None:
    """A column that proved right is left alone for a while; at most one opens, the lowest (attacks B4a)."""
    reports = {peer: (Report((0.0,), LOUD),) * 4 for peer in PEERS}
    assert find_suspicious_part(PARTS, reports, 1) == 0
    assert find_suspicious_part(PARTS, reports, 1, exempt=(0, 1)) == 2
    assert find_suspicious_part(PARTS, reports, 1, exempt=range(4)) is None


def test_empty_part_is_never_opened() -> None:
    """With fewer chunks than members there is nothing to open."""
    empty = Part(0, PEERS[0], range(0), 0, 0, 0.0, 0.0)
    assert find_suspicious_part([empty], {PEERS[0]: (Report((1.0,), 1.0),)}, 0) is None


@pytest.mark.parametrize(
    ("norm", "projection", "opened"),
    [
        (0.5, 9.0 * 0.5, False),
        (0.5, 9.1 * 0.5, True),
        (100.0, 9.0 * TAU, False),  # clipped: the norm that counts is tau
        (100.0, -9.1 * TAU, True),
        (0.0, 0.0, False),
        (0.0, 1e-6, True),
    ],
)
def test_projection_beyond_its_norm_opens_the_column(norm: float, projection: float, opened: bool) -> None:
    """Nobody cancels a large residual with a single report (attacks B4, free multiplier)."""
    reports = make_norms(0.0, 0.0) | {PEERS[3]: (Report((0.0,), 0.0),) * 3 + (Report((projection,), norm),)}
    assert find_suspicious_part(PARTS, reports, 1) == (3 if opened else None)


# --- Verification 3 ---


def recompute(
    reports: tuple[Report, ...], root: bytes = OTHER_ROOT, norms: tuple[float, ...] = (3.0, 0.0, 3.0, 3.0)
) -> Recomputation:
    """A verifier's recomputation with these reports; its gradient vanishes on part 1."""
    return Recomputation(root, overflow=False, reports=reports, part_norms=norms)


TRUTH = tuple(Report((0.5,), 2.0) for _ in PARTS)


def claim(part: int, projection: float, norm: float) -> tuple[Report, ...]:
    """The truth but for one part."""
    return tuple(Report((projection,), norm) if index == part else report for index, report in enumerate(TRUTH))


def test_true_reports_are_not_false() -> None:
    """The same bits and the same reports agree, whatever the roots and the slack."""
    for root in (ROOT, OTHER_ROOT):
        for slack in (1.0, 2.0):
            assert find_false_parts(CONFIG, PARTS, TRUTH, recompute(TRUTH, root), ROOT, slack) == ()


@pytest.mark.parametrize("part", range(4))
def test_false_part_is_named(part: int) -> None:
    """A gross lie is found on its part and on no other, in projection and norm alike."""
    for lie in (claim(part, -0.5, 2.0), claim(part, 0.5, 200.0)):
        for slack in (1.0, 2.0):
            assert find_false_parts(CONFIG, PARTS, lie, recompute(TRUTH), ROOT, slack) == (part,)


def test_voter_with_the_same_bits_allows_rounding_only() -> None:
    """The hardware tolerance is for other hardware."""
    lie = claim(0, 0.5 + 1e-6, 2.0)
    assert find_false_parts(CONFIG, PARTS, lie, recompute(TRUTH, ROOT), ROOT, 1.0) == (0,)
    assert find_false_parts(CONFIG, PARTS, lie, recompute(TRUTH, OTHER_ROOT), ROOT, 1.0) == ()


def test_validator_does_not_accuse_what_only_the_same_bits_show() -> None:
    """A cheat that shares the validator's hardware cannot bait it before voters with other bits (attacks B7)."""
    lie = claim(0, 0.5 + 1e-6, 2.0)
    assert find_false_parts(CONFIG, PARTS, lie, recompute(TRUTH, ROOT), ROOT, 2.0) == ()


def test_inflated_norm_buys_no_tolerance() -> None:
    """The tolerance comes from the verifier's own values: a huge claimed norm is just false (attacks B7)."""
    for norm in (1e3, 1e9, 1e100):
        assert find_false_parts(CONFIG, PARTS, claim(2, 0.9 * norm, norm), recompute(TRUTH), ROOT, 1.0) == (2,)
        assert find_false_parts(CONFIG, PARTS, claim(2, 0.6, norm), recompute(TRUTH), ROOT, 2.0) == (2,)


def test_tolerance_of_a_part_counts_its_own_norm_and_its_share_of_the_whole() -> None:
    """Where the gradient vanishes, the whole still leaves room for the noise of other hardware."""
    whole = math.sqrt(27.0)
    deviation = CONFIG.tolerance * whole * math.sqrt(16 / 64)  # part 1: its own norm is 0
    inside, outside = claim(1, 0.5, 2.0 + 0.99 * deviation), claim(1, 0.5, 2.0 + 1.01 * deviation)
    assert find_false_parts(CONFIG, PARTS, inside, recompute(TRUTH), ROOT, 1.0) == ()
    assert find_false_parts(CONFIG, PARTS, outside, recompute(TRUTH), ROOT, 1.0) == (1,)


deviations = st.floats(-0.1, 0.1)


@given(
    st.lists(st.floats(0.0, 1e6), min_size=4, max_size=4),
    st.floats(-5.0, 5.0),
    st.sampled_from([(ROOT, ROOT), (ROOT, OTHER_ROOT), (OTHER_ROOT, ROOT), (OTHER_ROOT, OTHER_ROOT)]),
    st.tuples(deviations, deviations, deviations),
)
def test_honest_accuser_never_loses(
    norms: list[float], lie: float, roots: tuple[bytes, bytes], noise: tuple[float, float, float]
) -> None:
    """Whatever a validator accuses beyond 2 tol, every honest voter convicts beyond tol (attacks B7).

    Honest recomputations differ by a tenth of the tolerance (``calibrate`` sees to that); either may
    or may not share the target's bits, and then differs from the truth by nothing.
    """
    own_norms = tuple(norms)
    whole = math.sqrt(math.fsum(norm * norm for norm in norms))
    unit = CONFIG.tolerance * (norms[0] + whole * 0.5)
    assume(unit > 1e-9)

    def perceive(root: bytes, deviation: float) -> Recomputation:
        off = 0.0 if root == ROOT else deviation * unit
        first = Report((0.5 + off * PROJECTION_FACTOR, 0.25), 2.0 + off)
        return recompute((first, *(Report((0.5, 0.25), 2.0),) * 3), root, own_norms)

    claimed = (
        Report((0.5 + lie * unit * PROJECTION_FACTOR, 0.25), 2.0 + noise[2] * unit),
        *(Report((0.5, 0.25), 2.0),) * 3,
    )
    validator, voter = (perceive(root, deviation) for root, deviation in zip(roots, noise, strict=False))
    if find_false_parts(CONFIG, PARTS, claimed, validator, ROOT, 2.0):
        assert find_false_parts(CONFIG, PARTS, claimed, voter, ROOT, 1.0)


@given(st.lists(st.floats(0.0, 1e6), min_size=4, max_size=4), deviations, deviations)
def test_honest_target_is_neither_accused_nor_convicted(norms: list[float], one: float, other: float) -> None:
    """A tenth of the tolerance between two honest machines convicts nobody, even at slack 1."""
    whole = math.sqrt(math.fsum(norm * norm for norm in norms))
    units = [CONFIG.tolerance * (norm + whole * 0.5) for norm in norms]
    claimed = tuple(Report((0.5 + one * PROJECTION_FACTOR * unit,), 2.0 + other * unit) for unit in units)
    own = recompute(TRUTH, OTHER_ROOT, tuple(norms))
    assert find_false_parts(CONFIG, PARTS, claimed, own, ROOT, 1.0) == ()
