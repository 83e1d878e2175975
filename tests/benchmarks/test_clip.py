"""The benchmark of CenteredClip: what it makes of one radius, and of a rival that is not there."""

import torch
from benchmarks.clip import Step, compare, find_byzfl, format_result, make_problem

TAU = 0.5


def test_all_sides_are_measured_on_the_same_rows():
    """Ours is within the bound; a rival that returns nothing useful is far beyond it, however fast it is."""
    problem = make_problem(peers=5, byzantine=2, elements=50, scale=1000.0, seed=0)
    figures = compare(problem, TAU, 1e-6, Step.PAPER, 3, lambda rows, tau: torch.zeros(rows.shape[1]))
    assert list(figures["results"]) == ["btard", "direct", "byzfl"]
    over = {name: side["residual_over_bound"] for name, side in figures["results"].items()}
    assert over["btard"] <= 1 < over["byzfl"]
    assert all(0 < side["min_ms"] <= side["median_ms"] for side in figures["results"].values())
    assert set(figures["ratios"]) == {"direct", "byzfl"}
    assert figures["direct_steps"] > 1


def test_a_rival_that_is_not_installed_is_named():
    """Its column is missing, and below the table stands why; a gain of 4 is a ratio of a quarter."""
    side = {"median_ms": 1.0, "min_ms": 0.5, "residual_over_bound": 0.1}
    ratio = {"median": 0.25, "min": 0.2, "max": 0.3}
    case = {"tau": 1, "direct_steps": 80, "results": {"btard": side, "direct": side}, "ratios": {"direct": ratio}}
    names = {"command": "c", "machine": "m", "torch": "t", "commit": "x", "peers": 2, "byzantine": 0, "elements": 9}
    text = format_result({**names, "cases": [case], "reasons": {"byzfl": "not here"}})
    assert "| 1 | 80 | 1 | 1 | 4 | 0.1 | 0.1 |" in text
    assert text.endswith("- byzfl: not here")


def test_byzfl_is_found_or_a_reason(monkeypatch):
    """Without the package there is a sentence that says how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "nox -s byzfl" in find_byzfl(11)
