"""Two results side by side."""

import json
from pathlib import Path

import typer
from benchmarks.compare import compare, find_changes, format_comparison, main
from typer.testing import CliRunner

A = {"machine": "m", "commit": "1", "results": {"btard": {"median_ms": 100.0, "cpu_s": 2.0, "old": 1}}}
B = {"machine": "m", "commit": "2", "results": {"btard": {"median_ms": 50.0, "cpu_s": 2.0, "new": 1}}}


def test_common_figures_are_divided_and_others_named():
    """What both have is B over A; what one has alone is named, and so is what they were measured on."""
    compared = compare(A, B)
    assert compared["both"] == {"results.btard.median_ms": [100.0, 50.0, 0.5], "results.btard.cpu_s": [2.0, 2.0, 1.0]}
    assert compared["only_a"] == ["results.btard.old"]
    assert compared["only_b"] == ["results.btard.new"]
    assert compared["circumstances"] == {"commit": ["1", "2"]}


def test_the_greatest_change_comes_first_whatever_its_direction():
    """Half and triple are sorted by their factor; what changed too little is left out; nothing divides by zero."""
    both = {"half": [2, 1, 0.5], "triple": [1, 3, 3.0], "same": [1, 1, 1.0], "from zero": [0, 1, None]}
    assert [row[0] for row in find_changes(both, 0.2)] == ["from zero", "triple", "half"]
    assert len(find_changes(both, 0.0)) == 4


def test_the_command_prints_a_table(tmp_path: Path):
    """Two files give a table and a JSON file."""
    for name, result in (("a", A), ("b", B)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    app = typer.Typer()
    app.command()(main)
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    done = CliRunner().invoke(app, [*paths, "--json", str(tmp_path / "c.json")])
    assert done.exit_code == 0
    assert "| results.btard.median_ms | 100 | 50 | 0.5 |" in done.output
    assert json.loads((tmp_path / "c.json").read_text())["only_b"] == ["results.btard.new"]


def test_circumstances_are_told_first():
    """Whoever reads the table sees at once that the commits differ."""
    assert format_comparison(compare(A, B), 0.0).startswith("- commit: `1` against `2`")
