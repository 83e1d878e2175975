"""
What one round costs: N real processes over loopback, gradients for free, every check and the encryption on.

With ``--against`` others reduce vectors of the same length in the same call, round by round in turns:

    gloo       torch.distributed's all_reduce: no encryption, no checks
    hivemind   AllReduceRunner without matchmaking: encrypted, no checks; ``nox -s hivemind`` makes its environment
    plain      our own butterfly over the same encrypted links, without any check

A round of ours ends when x has moved, the aggregate is on disk and the next gradient is asked for; one of the others
when every process has the mean. A ratio is our time over the other's in the round of the same number. CPU
seconds, bytes sent and resident memory are means over the peers, medians over the rounds; ``phases`` are
milliseconds, ``cpu_ms_by_line`` what the CPU time of a peer goes to.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from benchmarks.contest import HIVEMIND_PYTHON, OURS, RIVALS, Task, open_contest
from benchmarks.drawing import draw_bars
from benchmarks.report import Result, describe, format_table, shorten, write

FIGURES = {
    "median_ms": "median ms",
    "p10_ms": "10%",
    "p90_ms": "90%",
    "cpu_s_per_peer": "CPU s per peer",
    "system_s_per_peer": "in the kernel",
    "page_faults": "page faults",
    "bytes_data": "data bytes",
    "bytes_protocol": "protocol bytes",
    "rss_bytes": "resident bytes",
}


def format_result(result: Result, figures: Mapping[str, str] = FIGURES) -> str:
    """Return the result as Markdown; ``figures`` are the columns, with their headings."""
    rows = [[name, *(team.get(key) for key in figures)] for name, team in result["results"].items()]
    lines = [f"`{result['command']}`  ", f"{result['machine']}, commit {shorten(result['commit'])}", ""]
    lines += [format_table(["", *figures.values()], rows), ""]
    pairs = [[name, *(ratio.get(key) for key in ("median", "min", "max"))] for name, ratio in result["ratios"].items()]
    if pairs:
        lines += [format_table(["btard over", "median", "min", "max"], pairs), ""]
    lines += [f"- {name}: {team['reason']}" for name, team in result["results"].items() if "reason" in team]
    ours = result["results"][OURS]
    for title, key in (("phase, ms", "phases"), ("CPU time of a peer, ms", "cpu_ms_by_line")):
        if ours.get(key):
            lines += [format_table([title, ""], ours[key].items()), ""]
    return "\n".join(lines)


def check_rivals(text: str, known: Sequence[str] = RIVALS) -> list[str]:
    """Return the names in a list with commas.

    Raises:
        BadParameter: there is no such rival.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name}: known are {', '.join(known)}")
    return list(dict.fromkeys(names))


def main(
    peers: Annotated[int, Option(min=2, max=64, help="processes of every team")] = 8,
    elements: Annotated[int, Option(min=2, help="length D of the vector, float32")] = 1_000_000,
    rounds: Annotated[int, Option(min=1, help="rounds that count")] = 10,
    warm_up: Annotated[int, Option(min=1, help="rounds before them")] = 2,
    against: Annotated[str, Option(help=f"others that take turns: {', '.join(RIVALS)}; commas between")] = "",
    seed: Annotated[int, Option(help="of the vectors and keys")] = 0,
    hivemind_python: Annotated[Path, Option(help="the Python that has hivemind")] = HIVEMIND_PYTHON,
    directory: Annotated[
        Path | None, Option(exists=True, help="where ledgers and aggregates are written; else where temporary files go")
    ] = None,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
    svg: Annotated[Path | None, Option(help="where to draw what a peer's CPU time goes to")] = None,
) -> None:
    """Measure rounds of real processes, beside others in turns."""
    rivals = check_rivals(against)
    command = f"python -m benchmarks.round --peers {peers} --elements {elements} --rounds {rounds} --seed {seed}"
    command += f" --against {','.join(rivals)}" if rivals else ""
    result = describe("round", seed, command + (f" --directory {directory}" if directory else ""))
    pythons = {"hivemind": hivemind_python}
    with open_contest(Task(peers, elements, seed), rivals, pythons, directory) as contest:
        contest.play(warm_up, rounds)
        result |= contest.sum_up()
    write(path, result)
    if svg is not None:
        lines = result["results"][OURS].get("cpu_ms_by_line", {})
        svg.write_text(draw_bars(f"CPU time of a peer and round, {peers} peers × {elements}", lines, "ms"), "utf-8")
    print(format_result(result))
    if "reason" in result["results"][OURS]:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
