"""Contestants in turns: what is made of their figures, and one small contest of real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from benchmarks.contest import REST, Contest, Task, Team, average, sort_lines, sum_up
from benchmarks.round import check_rivals, format_result

ROOT = Path(__file__).parent.parent.parent


def say(began: float, ended: float, **figures: object) -> dict:
    """Return what a process says of a round."""
    return {"began": began, "ended": ended, "cpu_s": 0.5, "rss_bytes": 1000, **figures}


def make_team(name: str, *rounds: list[dict]) -> Team:
    """Return a team that has played."""
    return Team(name, Path(), rounds=list(rounds))


def test_a_round_lasts_from_the_first_to_the_last():
    """It begins with the process that began first and ends with the one that ended last."""
    assert make_team("btard", [say(1.0, 2.0), say(1.5, 3.0)]).durations() == [2000.0]


def test_figures_are_means_over_processes_and_medians_over_rounds():
    """What a process does not tell is None, and tables are averaged entry by entry."""
    rounds = [[say(0, 1, bytes_data=10, phases={"a": 1.0}), say(0, 1, bytes_data=30, phases={"a": 3.0})]] * 3
    figures = sum_up(rounds, [100.0, 300.0, 200.0])
    assert (figures["median_ms"], figures["bytes_data"], figures["bytes_protocol"]) == (200.0, 20, None)
    assert figures["phases"] == {"a": 2.0}
    assert average([[say(0, 1)]], "phases") == {}


def test_lines_are_sorted_and_the_rest_is_told():
    """The largest first, and last what no line accounts for: together the CPU time of a peer."""
    lines = sort_lines({"small": 0.1, "large": 0.3}, 0.5)
    assert list(lines) == ["large", "small", REST]
    assert sum(lines.values()) == pytest.approx(500.0)
    assert sort_lines({}, 0.5) == {}


def test_a_team_that_failed_is_named_with_its_reason():
    """It has a reason in place of figures and of a ratio, in the result and in the table."""
    contest = Contest(Task(2, 10, 0), [make_team("btard", [say(0, 1)]), make_team("gloo")], {"gloo": "no gloo here"})
    result = contest.sum_up()
    assert result["results"]["gloo"] == {"reason": "no gloo here"}
    assert result["ratios"]["gloo"] == {"reason": "no gloo here"}
    text = format_result({"command": "c", "machine": "m", "commit": "x", **result})
    assert "- gloo: no gloo here" in text


def test_a_round_without_a_partner_has_no_ratio():
    """A team that fell out keeps its figures; only the rounds that both played are pairs."""
    ours = make_team("btard", [say(0, 2)], [say(0, 4)])
    contest = Contest(Task(2, 10, 0), [ours, make_team("gloo", [say(0, 1)])], {"gloo": "it ended"})
    assert contest.sum_up()["ratios"]["gloo"] == {"median": 2.0, "min": 2.0, "max": 2.0}


def test_unknown_rivals_are_refused():
    """A rival's name is known or a mistake; a name twice is one team."""
    assert check_rivals("gloo, plain,gloo") == ["gloo", "plain"]
    assert check_rivals("") == []
    with pytest.raises(typer.BadParameter):
        check_rivals("nccl")


def test_real_processes_take_turns(tmp_path: Path):
    """Three peers of 1,000 elements do two rounds; a rival without its environment is named."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.round", "--peers=3", "--elements=1000", "--rounds=2"]
    options = ["--against=hivemind", "--hivemind-python", str(tmp_path / "none"), "--json", str(path)]
    done = subprocess.run(
        [*command, *options, "--directory", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert list(result) == ["machine", "command", "seed", "commit", "results", "ratios"]
    ours = result["results"]["btard"]
    assert ours["median_ms"] > 0
    assert ours["bytes_protocol"] > 0
    assert 3000 < ours["bytes_data"] < 3 * 4000
    assert list(ours["phases"])[:4] == ["commit", "settle_previous", "aggregate", "reveal"]
    assert ours["cpu_ms_by_line"]["hash our gradient"] > 0
    assert "nox -s hivemind" in result["results"]["hivemind"]["reason"]
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]
