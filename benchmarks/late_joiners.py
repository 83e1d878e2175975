"""
What a join costs a running swarm: the demo with strangers that know the ticket alone, and the seconds of its rounds.

The demo runs as anybody would start it. A round takes what the median member of those that were there from the
beginning logged for it, and is compared with the median round. Of each joiner three rounds are told, and the five
around each: in which it had found the run and begun to ask for a place (by its own log), from which it was a candidate,
and from which a member (by the seals). Exit status 1 unless all are promoted, all end with one state, and no round
within two of an admission or an entry took more than twice the median.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from typer import Option

from benchmarks.report import describe, write
from btard.cli.demo_plan import JSON_LOG

Event = dict[str, Any]
Result = dict[str, Any]
MOST = 2.0
"""Times the median that a round may take because of a join."""
NEAR = 2
"""Rounds before and after a moment that are looked at."""
MOMENTS = "applied", "admitted", "entered"
JUDGED = "admitted", "entered"


def read_log(ledger: str) -> list[Event]:
    """Return the events of the peer that keeps its ledger there."""
    lines = Path(ledger).with_name(JSON_LOG).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def time_rounds(logs: Iterable[Iterable[Event]]) -> dict[int, float]:
    """Return the milliseconds of every round: the median of its members."""
    times = defaultdict[int, list[float]](list)
    for event in (event for log in logs for event in log if event["event"] == "round"):
        times[event["round"]].append(event["wall_ms"])
    return {number: median(values) for number, values in sorted(times.items())}


def find_application(joiner: Iterable[Event], member: Iterable[Event]) -> int | None:
    """Return the round that ``member`` was in when a joiner was ready to ask for a place."""
    ready = next((event["t"] for event in joiner if event["event"] == "ready"), None)
    if ready is None:
        return None
    return 1 + sum(event["event"] == "round" and event["t"] <= ready for event in member)


def sum_up(rounds: Mapping[int, float], joiners: Iterable[Mapping[str, int | None]]) -> Result:
    """Return the median round, the rounds beyond twice that, and the rounds around the moments of each joiner."""
    middle = median(rounds.values())
    ratios = {number: round(ms / middle, 2) for number, ms in rounds.items()}

    def look_around(number: int | None) -> dict[int, float]:
        if number is None:
            return {}
        return {near: ratios[near] for near in range(number - NEAR, number + NEAR + 1) if near in ratios}

    return {
        "median_ms": round(middle, 1),
        "beyond_twice": {number: ratio for number, ratio in ratios.items() if ratio > MOST},
        "joiners": [
            {name: {"round": joiner[name], "around": look_around(joiner[name])} for name in MOMENTS}
            for joiner in joiners
        ],
    }


def find_problems(result: Result, states: Iterable[str | None], verdict: str) -> list[str]:
    """Return what is not as it should be, ``states`` being those of all members and joiners in the end."""
    problems = [] if verdict == "ok" else [f"the demo's verdict is {verdict}"]
    if len(distinct := set(states)) != 1 or None in distinct:
        problems.append(f"not one state in the end: {', '.join(sorted(map(str, distinct)))}")
    for index, joiner in enumerate(result["joiners"], 1):
        if joiner["entered"]["round"] is None:
            problems.append(f"joiner {index} was not promoted")
        problems += [
            f"joiner {index} {name} in round {joiner[name]['round']}: round {number} took {ratio} times the median"
            for name in JUDGED
            for number, ratio in joiner[name]["around"].items()
            if ratio > MOST
        ]
    return problems


def measure(report: Result) -> Result:
    """Return what the report of a demo, and the logs beside its ledgers, say about its joiners."""
    members = [read_log(peer["ledger"]) for peer in report["peers"]]
    joiners = [
        {
            "applied": find_application(read_log(joiner["ledger"]), members[0]),
            "admitted": joiner["joined_in_round"],
            "entered": joiner["promoted_in_round"],
        }
        for joiner in report["late_joiners"]
    ]
    result = sum_up(time_rounds(members), joiners)
    states = [*report["state_digests"], *(joiner["state"] for joiner in report["late_joiners"])]
    return result | {"states": states, "problems": find_problems(result, states, report["verdict"])}


def format_result(result: Result) -> str:
    """Return the result for people to read."""
    lines = [f"median round {result['median_ms']} ms; rounds beyond twice that: {result['beyond_twice'] or 'none'}"]
    for index, joiner in enumerate(result["joiners"], 1):
        for name in MOMENTS:
            around = ", ".join(f"{number}: {ratio}" for number, ratio in joiner[name]["around"].items())
            lines.append(f"joiner {index} {name} in round {joiner[name]['round']}, times the median: {around or '-'}")
    return "\n".join([*lines, *(result["problems"] or ["all is well"])])


def main(
    peers: Annotated[int, Option(min=2, help="members at genesis")] = 6,
    joiners: Annotated[int, Option(min=1, help="strangers that join")] = 2,
    rounds: Annotated[int, Option(min=1, help="training steps; 60 and ten for each joiner at least")] = 150,
    seed: Annotated[int, Option(help="fixes the first parameters")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Let strangers join a demo; fail if one does not become a member, or if a round took twice the median for it."""
    directory = Path(tempfile.mkdtemp(prefix="btard-bench-"))
    told = directory / "demo.json"
    command = [sys.executable, "-m", "btard.cli", "demo", "--quiet", "--byzantine", "0", "--peers", str(peers)]
    command += ["--rounds", str(rounds), "--late-joiners", str(joiners), "--seed", str(seed)]
    subprocess.run([*command, "--data-dir", str(directory / "demo"), "--json", str(told)], check=False)
    if not told.exists() or not told.stat().st_size:
        print("the demo did not run")
        raise typer.Exit(1)
    result = describe("late_joiners", seed) | measure(json.loads(told.read_text("utf-8")))
    print(format_result(result))
    write(path, result)
    if result["problems"]:
        raise typer.Exit(1)  # the swarm's files stay, for a look
    shutil.rmtree(directory)


if __name__ == "__main__":
    typer.run(main)
