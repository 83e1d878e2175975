"""What every benchmark says of itself, and how figures are summed up: machine and commit, quantiles, ratios, tables."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def describe(name: str, seed: int | None = None, command: str | None = None) -> Result:
    """Return machine, command, seed (where something is drawn) and commit of the benchmark ``name``, started now."""
    said = {
        "machine": describe_machine(),
        "command": command or " ".join([f"python -m benchmarks.{name}", *sys.argv[1:]]),
        "seed": seed,
        "commit": find_commit(),
    }
    return {key: value for key, value in said.items() if key != "seed" or value is not None}


def describe_machine() -> str:
    """Return processor, cores, how busy they are, and what runs us."""
    return (
        f"{find_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def find_processor() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def find_commit() -> str:
    """Return the commit checked out here, with a plus where files differ from it; empty outside a repository."""
    commit = _ask_git("rev-parse", "HEAD")
    return commit + "+" if commit and _ask_git("status", "--porcelain", "--untracked-files=no") else commit


def shorten(commit: str) -> str:
    """Return a commit for people to read, its plus kept."""
    return commit[:12] + ("+" if commit.endswith("+") else "")


def _ask_git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def write(path: Path | None, result: object) -> None:
    """Write the result as JSON, if somebody wants it."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def compute_quantile(values: Iterable[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie, between two neighbours in proportion."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def compute_median(values: Iterable[float]) -> float:
    """Return the middle value."""
    return compute_quantile(values, 0.5)


def compute_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Result:
    """Return median, min and max of our time over theirs, pair by pair; what was measured of one alone counts not."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=False)]
    if not ratios:
        return {}
    return {"median": round(compute_median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def format_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are shortened, None is a dash."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(format_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def format_cell(value: object) -> str:
    """Return a number with about three digits, a large whole one in groups, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers of a result by their path, ``a.b.c``; lists are left out."""
    numbers: dict[str, float] = {}
    for key, value in result.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            numbers |= flatten(value, f"{path}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[path] = value
    return numbers
