"""The cost model: fits that find what made the figures, and never a term that cannot be."""

import pytest
from benchmarks.model import (
    compute_error,
    compute_seconds,
    count_data_bytes,
    evaluate,
    fit_exponent,
    fit_polynomial,
)

SIZES = (16, 32, 64)


@pytest.mark.parametrize("factors", [(3.0, 0.0, 0.0), (1.0, 2.0, 0.0), (100.0, 0.0, 5.0), (7.0, 3.0, 0.25)])
def test_a_fit_finds_the_polynomial_that_made_the_values(factors):
    """Three exact values give back their coefficients, and with them the value at any other size."""
    found = fit_polynomial(SIZES, [evaluate(factors, size) for size in SIZES])
    assert found == pytest.approx(factors, rel=1e-6, abs=1e-6)
    assert evaluate(found, 1024) == pytest.approx(evaluate(factors, 1024), rel=1e-6)


def test_no_term_of_a_fit_is_negative():
    """Values that grow more slowly than any line through the origin get no negative quadratic term."""
    found = fit_polynomial(SIZES, [size**0.5 for size in SIZES])
    assert min(found) >= 0
    assert evaluate(found, 4096) > evaluate(found, 64)


def test_exponents_are_those_of_the_power_law():
    """5·n^1.7 has the exponent 1.7; one size has none."""
    assert fit_exponent(SIZES, [5 * size**1.7 for size in SIZES]) == pytest.approx(1.7)
    assert fit_exponent([8, 8], [1.0, 2.0]) is None


def test_a_round_takes_what_its_parts_take():
    """Hops, bytes over the link's speed, and CPU time add up."""
    assert compute_seconds(6.0, 0.05, 1e6, 8e6, 0.5) == pytest.approx(0.3 + 1.0 + 0.5)


def test_data_is_two_vectors_less_ones_own_part():
    """Out go the slices of others' parts, and to each of the others our part."""
    assert count_data_bytes(4, 1000) == 2 * 4 * 1000 * 3 / 4
    assert compute_error(11.0, 10.0) == pytest.approx(0.1)
