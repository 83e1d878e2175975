"""The benchmark of Sybils: what makes it fail."""

import pytest
from benchmarks.growth import compute_growth, find_growth
from benchmarks.sybils import find_problems

ODDS = {"promoted": 0, "members_banned": 0, "unfinished_or_split": []}


def test_a_harmless_crowd_is_no_problem():
    """Growth just below a tenth, calls of functions whatever they say, and figures that were not taken."""
    assert find_problems(ODDS, {"seeds": 2, "bytes": 0.0999, "cpu_ms": -0.04, "gradients": 0.067, "calls": 0.3}) == []
    assert find_problems(ODDS, {"seeds": 0}) == []


@pytest.mark.parametrize(("name", "words"), [("bytes", "bytes"), ("cpu_ms", "CPU seconds"), ("gradients", "gradients")])
def test_a_tenth_more_is_too_much(name, words):
    """Each cost alone makes it fail, and is named."""
    assert find_growth({"bytes": 0.0, "cpu_ms": 0.0, "gradients": 0.0, name: 0.1}) == [
        f"the members' {words} grew by 10.0%; less than 10% is allowed"
    ]


def test_growth_is_a_share_of_what_was_there():
    """A half more is 0.5; what was not counted has none."""
    assert compute_growth({"bytes": 2.0, "calls": 0}, {"bytes": 3.0, "calls": 5}, ("bytes", "calls")) == {"bytes": 0.5}


def test_what_became_of_the_run_counts_too():
    """A Sybil that came in, a member that was thrown out, a seed without one state."""
    odds = {"promoted": 1, "members_banned": 2, "unfinished_or_split": [7]}
    assert find_problems(odds, {}) == [
        "1 Sybils were promoted",
        "2 members were banned",
        "unfinished, or without one state, are seeds [7]",
    ]
