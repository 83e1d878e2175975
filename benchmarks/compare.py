"""
Two results of one benchmark side by side: every number that both have, and how much of A it is in B.

Numbers that differ in what they were measured on (machine, command, seed, commit) are named first.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from benchmarks.report import Result, flatten, format_table, write

CIRCUMSTANCES = ("machine", "command", "seed", "commit")


def compare(first: Result, second: Result) -> Result:
    """Return ``both`` (path to the value in A, in B, and B over A), and the paths that one of them has alone."""
    one, other = flatten(first), flatten(second)
    return {
        "circumstances": {
            key: [first.get(key), second.get(key)] for key in CIRCUMSTANCES if first.get(key) != second.get(key)
        },
        "both": {path: [one[path], other[path], divide(other[path], one[path])] for path in one if path in other},
        "only_a": [path for path in one if path not in other],
        "only_b": [path for path in other if path not in one],
    }


def divide(over: float, under: float) -> float | None:
    """Return the quotient; None where there is none."""
    return round(over / under, 4) if under else None


def find_changes(both: dict[str, list[Any]], least: float) -> list[list[Any]]:
    """Return the rows (path, A, B, B over A) that changed by at least ``least``, the greatest change first."""

    def change(ratio: float | None) -> float:
        return max(ratio, 1 / ratio) - 1 if ratio and ratio > 0 else float("inf")

    rows = [[path, *values] for path, values in both.items() if values[0] != values[1] or not least]
    return sorted((row for row in rows if change(row[3]) >= least), key=lambda row: -change(row[3]))


def format_comparison(compared: Result, least: float) -> str:
    """Return the comparison as Markdown."""
    lines = [f"- {key}: `{a}` against `{b}`" for key, (a, b) in compared["circumstances"].items()]
    rows = find_changes(compared["both"], least)
    lines += ["", format_table(["figure", "A", "B", "B over A"], rows)]
    lines += [f"- only in {name}: {', '.join(paths)}" for name in "ab" if (paths := compared[f"only_{name}"])]
    return "\n".join(lines)


def main(
    first: Annotated[Path, Argument(metavar="A", exists=True, help="JSON of one run")],
    second: Annotated[Path, Argument(metavar="B", exists=True, help="JSON of another")],
    least: Annotated[float, Option(min=0.0, help="leave out what changed by less than this share")] = 0.0,
    path: Annotated[Path | None, Option("--json", help="where to write the comparison")] = None,
) -> None:
    """Set two results side by side."""
    compared = compare(json.loads(first.read_text("utf-8")), json.loads(second.read_text("utf-8")))
    print(format_comparison(compared, least))
    write(path, compared)


if __name__ == "__main__":
    typer.run(main)
