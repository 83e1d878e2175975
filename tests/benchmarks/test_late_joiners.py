"""The benchmark of joiners: whose rounds are timed, which rounds are looked at, and what makes it fail."""

import json
from pathlib import Path

import pytest
from benchmarks.late_joiners import find_application, find_problems, format_result, measure, sum_up, time_rounds

STATE = "5a"


def log(*durations: float) -> list[dict]:
    """Return what a member logs whose rounds take so many milliseconds; round 1 ends at 1 s, and so on."""
    return [
        {"event": "round", "round": number, "wall_ms": ms, "t": float(number)} for number, ms in enumerate(durations, 1)
    ]


def judge(rounds: dict[int, float], admitted: int | None = 10, entered: int | None = 20, state: str | None = STATE):
    """Return the problems of a run with one joiner."""
    result = sum_up(rounds, [{"applied": 8, "admitted": admitted, "entered": entered}])
    return find_problems(result, [STATE, state], "ok")


def slow(*numbers: int) -> dict[int, float]:
    """Return thirty rounds of which some take 2.5 times the median."""
    return {number: 250.0 if number in numbers else 100.0 for number in range(1, 31)}


def test_a_round_takes_what_its_median_member_says():
    """One busy member of three does not make a round slow, and a round that one alone has seen counts too."""
    assert time_rounds([log(10, 90), log(12, 20), log(50, 10, 5)]) == {1: 12, 2: 20, 3: 5}


def test_an_application_is_in_the_round_that_runs():
    """Ready after the second round is in the third; who never was ready never applied."""
    assert find_application([{"event": "ready", "t": 2.5}], log(1, 1, 1, 1)) == 3
    assert find_application([], log(1)) is None


def test_five_rounds_around_each_moment_are_told():
    """Those that the run had, over the median; the slow ones are named wherever they are."""
    result = sum_up(slow(12, 28), [{"applied": 1, "admitted": 10, "entered": None}])
    [joiner] = result["joiners"]
    assert joiner["applied"]["around"] == {1: 1.0, 2: 1.0, 3: 1.0}
    assert joiner["admitted"]["around"] == {8: 1.0, 9: 1.0, 10: 1.0, 11: 1.0, 12: 2.5}
    assert joiner["entered"] == {"round": None, "around": {}}
    assert (result["median_ms"], result["beyond_twice"]) == (100.0, {12: 2.5, 28: 2.5})
    assert "joiner 1 admitted in round 10, times the median: 8: 1.0," in format_result(result | {"problems": []})


@pytest.mark.parametrize("number", [8, 12, 18, 22])
def test_a_slow_round_beside_a_join_fails(number):
    """Within two rounds of an admission or an entry."""
    assert [problem for problem in judge(slow(number)) if f"round {number} took 2.5" in problem]


def test_a_slow_round_elsewhere_does_not():
    """Three rounds away it is nobody's fault, and no problem."""
    assert judge(slow(7, 13, 17, 23)) == []


def test_whoever_is_no_member_in_the_end_fails():
    """No promotion, another state, none, or a demo that found something wrong."""
    assert judge(slow(), entered=None) == ["joiner 1 was not promoted"]
    assert judge(slow(), state="7b") == ["not one state in the end: 5a, 7b"]
    assert judge(slow(), state=None) == ["not one state in the end: 5a, None"]
    assert find_problems({"joiners": []}, [STATE], "failed") == ["the demo's verdict is failed"]


def test_a_demo_is_read_from_its_report_and_logs(tmp_path: Path):
    """Logs lie beside the ledgers that the report names."""
    for name, events in (("a", log(*[100.0] * 30)), ("b", log(*[100.0] * 30)), ("c", [{"event": "ready", "t": 7.5}])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    ledgers = {name: str(tmp_path / name / "ledger.sqlite3") for name in "abc"}
    report = {
        "peers": [{"ledger": ledgers["a"]}, {"ledger": ledgers["b"]}],
        "late_joiners": [{"ledger": ledgers["c"], "joined_in_round": 10, "promoted_in_round": 20, "state": STATE}],
        "state_digests": [STATE],
        "verdict": "ok",
    }
    result = measure(report)
    assert result["problems"] == []
    assert [result["joiners"][0][name]["round"] for name in ("applied", "admitted", "entered")] == [8, 10, 20]
