"""
The table of attackers: demos over kinds of attack and seeds, and what became of them.

Each demo's JSON is kept in a directory; what is there already is not run again. For every kind and
seed there is one demo with the defence and one without; the clean row has no attackers.
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

KINDS = (
    "sign-flip",
    "random-direction",
    "wrong-aggregate",
    "collude",
    "lying-projection",
    "equivocate",
    "withhold",
    "withhold-reveal",
    "false-accusation",
    "false-naming",
    "lazy-validator",
    "mixed",
)
CLEAN = "clean"
DEMO_LIMIT_S = 1800

Report = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One demo: a kind of attack (or clean), a defence, a seed."""

    kind: str
    defence: str
    seed: int

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.kind}-{self.defence}-{self.seed}"


@dataclass(frozen=True)
class Size:
    """What all demos have in common."""

    peers: int
    byzantine: int
    rounds: int
    task: str
    attack_from: int


def list_cases(kinds: Sequence[str], seeds: Sequence[int], *, with_undefended: bool) -> list[Case]:
    """Return all demos, a seed's clean one first, so that an unfinished table has whole columns."""
    defences = ("btard", "none") if with_undefended else ("btard",)
    return [
        case
        for seed in seeds
        for case in (
            Case(CLEAN, "btard", seed),
            *(Case(kind, defence, seed) for defence in defences for kind in kinds),
        )
    ]


def make_command(case: Case, size: Size, result: Path, data: Path) -> list[str]:
    """Return the command line of a demo."""
    attackers = 0 if case.kind == CLEAN else size.byzantine
    kind = KINDS[0] if case.kind == CLEAN else case.kind
    words = [sys.executable, "-m", "btard.cli", "demo", "--quiet", "--json", str(result), "--data-dir", str(data)]
    words += ["--peers", str(size.peers), "--byzantine", str(attackers), "--attack", kind, "--defence", case.defence]
    words += ["--rounds", str(size.rounds), "--task", size.task, "--attack-from", str(size.attack_from)]
    return [*words, "--seed", str(case.seed)]


def run_case(case: Case, size: Size, directory: Path) -> str:
    """Run one demo and keep its JSON; its ledgers and logs stay only if something is wrong. Return its verdict."""
    draft, data = directory / f".{case.name}.json", directory / "runs" / case.name
    shutil.rmtree(data, ignore_errors=True)
    began = time.monotonic()
    command = make_command(case, size, draft, data)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEMO_LIMIT_S)
    if not draft.exists() or not draft.stat().st_size:
        return f"no result, exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    report = json.loads(draft.read_text())
    draft.replace(directory / f"{case.name}.json")
    if done.returncode == 0:
        shutil.rmtree(data, ignore_errors=True)
    reasons = "; ".join(report["reasons"])
    return f"{report['verdict']} after {time.monotonic() - began:.0f} s{': ' if reasons else ''}{reasons}"


def load_results(directory: Path, cases: Sequence[Case]) -> dict[Case, Report]:
    """Return the results that are there."""
    paths = {case: directory / f"{case.name}.json" for case in cases}
    return {case: json.loads(path.read_text()) for case, path in paths.items() if path.exists()}


def rounds_to_leave(report: Report) -> list[int]:
    """Return, for each attacker that acted and left, the rounds from its first act to its end."""
    return [
        (peer["removed_in_round"] if peer["banned_in_round"] is None else peer["banned_in_round"])
        - peer["attacked_from_round"]
        for peer in report["peers"]
        if peer["attacked_from_round"] is not None
        and not (peer["banned_in_round"] is None and peer["removed_in_round"] is None)
    ]


def count(reports: Sequence[Report], field: str) -> int:
    """Return how many attackers have a value in this field."""
    return sum(peer[field] is not None for report in reports for peer in report["peers"] if peer["byzantine"])


def format_mean(values: Sequence[float]) -> str:
    """Return the mean with a 95% interval (normal approximation)."""
    if not values:
        return "-"
    if len(values) < 2:
        return f"{values[0]:.1f}"
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.1f} ± {half:.1f}"


def format_accuracy(reports: Sequence[Report]) -> str:
    """Return mean, least and greatest accuracy in percent."""
    values = [100 * report["accuracy"] for report in reports if report["accuracy"] is not None]
    return f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "-"


def format_loss_of_accuracy(results: dict[Case, Report], kind: str) -> str:
    """Return how far the accuracy is from that of the same seed without attackers, in points: mean, and worst."""
    gaps = [
        100 * (report["accuracy"] - clean["accuracy"])
        for case, report in results.items()
        if (case.kind, case.defence) == (kind, "btard")
        and (clean := results.get(Case(CLEAN, "btard", case.seed)))
        and None not in {report["accuracy"], clean["accuracy"]}
    ]
    return f"{statistics.fmean(gaps):+.1f} ({max(gaps, key=abs):+.1f})" if gaps else "-"


HEADINGS = (
    "attack",
    "runs ok",
    "acted",
    "banned",
    "removed",
    "false bans",
    "false removals",
    "rounds until gone",
    "accuracy, % (range)",
    "against clean, points (worst)",
    "accuracy without defence, % (range)",
    "ms per round",
    "s per run",
    "final states",
)


def format_row(results: dict[Case, Report], kind: str) -> Sequence[str]:
    """Return one line of the table."""
    reports = [report for case, report in results.items() if (case.kind, case.defence) == (kind, "btard")]
    undefended = [report for case, report in results.items() if (case.kind, case.defence) == (kind, "none")]
    medians = [report["round_ms"]["median"] for report in reports if report["round_ms"]["median"] is not None]
    return (
        kind,
        f"{sum(report['verdict'] == 'ok' for report in reports)}/{len(reports)}",
        str(count(reports, "attacked_from_round")),
        str(count(reports, "banned_in_round")),
        str(count(reports, "removed_in_round")),
        str(sum(report["false_bans"] for report in reports)),
        str(sum(report["false_removals"] for report in reports)),
        format_mean([rounds for report in reports for rounds in rounds_to_leave(report)]),
        format_accuracy(reports),
        "" if kind == CLEAN else format_loss_of_accuracy(results, kind),
        "" if kind == CLEAN else format_accuracy(undefended),
        f"{statistics.fmean(medians):.0f}" if medians else "-",
        f"{statistics.fmean(report['wall_s'] for report in reports):.0f}" if reports else "-",
        str(max((len(report["state_digests"]) for report in reports), default="-")),
    )


def format_table(results: dict[Case, Report], kinds: Sequence[str], size: Size) -> Iterator[str]:
    """Yield the Markdown lines."""
    caught = (size.peers - size.byzantine) / size.peers / (size.peers - 1)
    yield f"{size.peers} peers, {size.byzantine} attackers from round {size.attack_from} on, {size.rounds} rounds of"
    yield f"`{size.task}`. A false gradient is caught with probability {caught:.3f} a round at first, so after"
    yield f"{1 / caught:.1f} rounds on average; that shortens as attackers leave."
    yield ""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    for kind in (CLEAN, *kinds):
        yield "| " + " | ".join(format_row(results, kind)) + " |"


def main(
    directory: Annotated[Path, Option(help="where the JSON files are kept")] = Path("attack-table"),
    kinds: Annotated[str, Option(help="kinds of attack, separated by commas")] = ",".join(KINDS),
    seeds: Annotated[int, Option(help="how many seeds, from 0 on")] = 5,
    peers: Annotated[int, Option(help="peers per demo")] = 8,
    byzantine: Annotated[int, Option(help="attackers per demo")] = 3,
    rounds: Annotated[int, Option(help="training steps per demo")] = 100,
    task: Annotated[str, Option(help="what is trained")] = "digits",
    attack_from: Annotated[int, Option(help="round in which attackers begin")] = 5,
    undefended: Annotated[bool, Option(help="also run each attack without defence")] = True,  # noqa: FBT002 - a flag
    run: Annotated[bool, Option(help="run what is missing, else only print")] = True,  # noqa: FBT002 - a flag
) -> None:
    """Run demos over kinds and seeds, keep their results, and print a Markdown table."""
    chosen = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    size = Size(peers, byzantine, rounds, task, attack_from)
    cases = list_cases(chosen, range(seeds), with_undefended=undefended)
    directory.mkdir(parents=True, exist_ok=True)
    results = load_results(directory, cases)
    missing = [case for case in cases if case not in results]
    for number, case in enumerate(missing if run else [], 1):
        print(f"[{number}/{len(missing)}] {case.name} ...", end=" ", file=sys.stderr, flush=True)
        print(run_case(case, size, directory), file=sys.stderr, flush=True)
    for line in format_table(load_results(directory, cases), chosen, size):
        print(line)


if __name__ == "__main__":
    typer.run(main)
