"""How benchmarks sum up and show figures."""

import json
from pathlib import Path

import pytest
from benchmarks.report import (
    compute_median,
    compute_quantile,
    compute_ratios,
    describe,
    flatten,
    format_cell,
    format_table,
    shorten,
    write,
)


def test_quantiles_lie_between_neighbours():
    """A tenth of the way through 0 to 10 is 1; the middle of two values is their mean; order does not matter."""
    assert compute_quantile(range(11), 0.1) == 1
    assert compute_quantile([3.0, 1.0], 0.5) == 2.0
    assert compute_median([7.0]) == 7.0
    assert compute_quantile([1.0, 2.0, 3.0], 1.0) == 3.0


def test_ratios_are_taken_pair_by_pair():
    """The median ratio is not the ratio of the medians, and what has no partner does not count."""
    ratios = compute_ratios([10.0, 20.0, 90.0, 5.0], [10.0, 5.0, 30.0])
    assert ratios == {"median": 3.0, "min": 1.0, "max": 4.0}
    assert compute_ratios([1.0], []) == {}


def test_a_table_is_markdown():
    """Headings, a rule, and one line for each row; numbers are short, nothing is a dash."""
    lines = format_table(["a", "b"], [[None, 1234567], ["x", 0.123456]]).splitlines()
    assert lines == ["| a | b |", "|---|---|", "| – | 1,234,567 |", "| x | 0.123 |"]


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (99.94, "99.9"), (True, "True"), (0, "0"), (0.0, "0")])
def test_cells_show_three_digits(value, text):
    """Large numbers lose their fraction, small ones keep three digits."""
    assert format_cell(value) == text


def test_numbers_are_found_by_their_path():
    """Words, truth values and lists are no numbers."""
    result = {"a": {"b": 1, "c": "x", "d": {"e": 0.5}}, "f": [1], "g": True, "h": None}
    assert flatten(result) == {"a.b": 1, "a.d.e": 0.5}


def test_a_benchmark_says_what_it_is(tmp_path: Path):
    """Machine, command, seed and commit; a seed only where something is drawn."""
    said = describe("round", 3, "python -m benchmarks.round --seed 3")
    assert list(said) == ["machine", "command", "seed", "commit"]
    assert said["seed"] == 3
    assert "cores" in said["machine"]
    assert "seed" not in describe("join")
    write(tmp_path / "a.json", said)
    assert json.loads((tmp_path / "a.json").read_text()) == said
    write(None, said)


def test_a_changed_checkout_keeps_its_mark():
    """A commit with a plus was measured on files that differ from it."""
    assert shorten("a" * 40 + "+") == "a" * 12 + "+"
    assert shorten("a" * 40) == "a" * 12
