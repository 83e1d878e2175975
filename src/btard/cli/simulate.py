"""``simulate``: a whole swarm in this process, on a virtual clock, everything drawn from one seed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.demo import check_writable
from btard.cli.exits import ExitCode
from btard.cli.logs import LogLevel, start_logging


def simulate(
    peers: Annotated[int | None, typer.Option(min=1, max=64, help="Peers. [drawn: 4 to 24]")] = None,
    byzantine: Annotated[
        int | None, typer.Option(min=0, help="How many of them cheat; fewer than half. [drawn]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Training steps.")] = 50,
    faults: Annotated[str, typer.Option(help="all: the seed chooses; none; or kinds, separated by commas.")] = "all",
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that is not given.")] = 0,
    attack: Annotated[
        str | None, typer.Option(help="What the Byzantine peers do, in turn: kinds, separated by commas. [drawn]")
    ] = None,
    task: Annotated[str | None, typer.Option(help="stub: a constant gradient; linear: least squares. [drawn]")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
    trace_path: Annotated[Path | None, typer.Option("--trace", help="Write every delivery and event here.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="Log lines of all peers, on standard error.")] = LogLevel.ERROR,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print scenario and verdict only.")] = False,
) -> int:
    """
    Run a swarm of real peers on a virtual clock, with faults and adversaries drawn from a seed, and check it.

    After every round five invariants are checked: agreement, no false ban, accountability, progress,
    nothing lost. Equal arguments give equal runs: the same trace digest, in every process. Exit code 0
    if all hold; 1 with the violated invariant, the round, and the command that reproduces it.

    For example:
        btard-peer simulate --seed 17

        btard-peer simulate --peers 16 --byzantine 7 --rounds 200 --faults all --seed 17 --json out.json
    """
    from btard.sim.drawing import Order
    from btard.sim.play import play_in_memory

    order = Order(peers, byzantine, rounds, faults, attack, task)
    scenario = order.draw(seed)
    for path in (json_path, trace_path):
        if path is not None:
            check_writable(path)
    start_logging(log_level)
    print("\n".join(scenario.describe()), flush=True)
    report = play_in_memory(scenario, trace_path, tell=(lambda line: None) if quiet else _tell)
    print("\n".join(report.describe()))
    if json_path is not None:
        json_path.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    if report.is_sound:
        return ExitCode.OK
    print("to reproduce: " + order.command(seed))
    return ExitCode.FAILED


def _tell(line: str) -> None:
    print(line, flush=True)
