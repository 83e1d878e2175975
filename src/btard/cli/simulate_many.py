"""
Many simulated runs: ``python -m btard.cli.simulate_many --seeds 500``, which is what ``nox -s simulate`` calls.

The first violation stops the campaign, once the runs under way have ended; every failing seed is printed
with the command that repeats it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from btard.errors import ConfigError
from btard.sim.drawing import Order
from btard.sim.many import play_seeds
from btard.sim.summary import Summary


def main() -> int:
    """Play the seeds that the command line names; return the exit code."""
    options = _parse()
    if options.summarise is not None:
        return _summarise(options.summarise)
    order = Order(options.peers, options.byzantine, options.rounds, options.faults, options.attack, options.task)
    seeds, summary, started = range(options.first, options.first + options.seeds), Summary(), time.monotonic()
    try:
        order.draw(options.first)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    step = max(1, len(seeds) // 50)
    for result in play_seeds(order, seeds, options.jobs, keeps_going=options.keep_going):
        summary.add(result)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        if result["violations"]:
            _tell_failure(result, order)
        elif summary.total.seeds % step == 0:
            spent, rounds = time.monotonic() - started, summary.total.counts["rounds_done"]
            print(f"{summary.total.seeds} of {len(seeds)} seeds, {rounds} rounds, {spent:.0f} s", flush=True)
    return _conclude(summary, order)


def _summarise(path: Path) -> int:
    """Print the tables of an earlier campaign from what ``--json`` wrote; return its exit code."""
    summary = Summary()
    with path.open(encoding="utf-8") as file:
        for line in file:
            summary.add(json.loads(line))
    return _conclude(summary, None)


def _conclude(summary: Summary, order: Order | None) -> int:
    print("\n".join(summary.describe()))
    for result in summary.failures:
        _tell_failure(result, order)
    return 1 if summary.failures or not summary.law.is_kept else 0


def _tell_failure(result: Mapping[str, Any], order: Order | None) -> None:
    for item in result["violations"]:
        print(f"seed {result['seed']}: {item['invariant']}, round {item['round']}: {item['detail']}")
    if order is not None:
        print(f"    {order.command(result['seed'])}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="btard.sim.many", description="Play many seeds and check all of them.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; one per core by default")
    parser.add_argument("--keep-going", action="store_true", help="play all seeds, whatever fails")
    parser.add_argument("--json", type=Path, help="append one report a line to this file")
    parser.add_argument("--summarise", type=Path, help="play nothing: add up what --json wrote to this file")
    for name in ("peers", "byzantine", "rounds"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Order, name), help="see btard-peer simulate")
    for name in ("faults", "attack", "task"):
        parser.add_argument(f"--{name}", default=getattr(Order, name), help="see btard-peer simulate")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
