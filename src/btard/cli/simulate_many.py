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
from collections import Counter
from collections.abc import Iterator, Mapping
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
    summary, started = Summary(), time.monotonic()
    try:
        order.draw(options.first)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if options.repeat:
        return _repeat(order, options)
    wanted = range(options.first, options.first + options.seeds)
    for result in _read(options.json) if options.resume else ():
        summary.add(result)
    seeds = [seed for seed in wanted if seed not in summary.seeds]
    step = max(1, len(wanted) // 50)
    for result in play_seeds(order, seeds, options.jobs, keeps_going=options.keep_going):
        summary.add(result)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        if result["violations"]:
            _tell_failure(result, order)
        elif summary.total.seeds % step == 0:
            spent, rounds = time.monotonic() - started, summary.total.counts["rounds_done"]
            print(f"{summary.total.seeds} of {len(wanted)} seeds, {rounds} rounds, {spent:.0f} s", flush=True)
    return _conclude(summary, order)


def _repeat(order: Order, options: argparse.Namespace) -> int:
    """Play one seed many times, each in a process and with a hash seed of its own; return 1 if any trace differs."""
    digests: Counter[str] = Counter()
    seeds = [options.first] * options.repeat
    for result in play_seeds(order, seeds, options.jobs, keeps_going=True, is_alone=True):
        digests[result.get("trace_digest", "none")] += 1
    for digest, count in digests.most_common():
        print(f"{count} runs of seed {options.first}: trace {digest}")
    return 0 if len(digests) == 1 else 1


def _read(path: Path | None) -> Iterator[dict[str, Any]]:
    """What ``--json`` wrote to a file, if there is one."""
    if path is not None and path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _summarise(path: Path) -> int:
    """Print the tables of an earlier campaign from what ``--json`` wrote; return its exit code."""
    summary = Summary()
    for result in _read(path):
        summary.add(result)
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
    parser = argparse.ArgumentParser(
        prog="python -m btard.cli.simulate_many", description="Play many seeds and check all of them."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; one per core by default")
    parser.add_argument("--keep-going", action="store_true", help="play all seeds, whatever fails")
    parser.add_argument("--json", type=Path, help="append one report a line to this file")
    parser.add_argument("--resume", action="store_true", help="count what --json wrote before, and play the rest")
    parser.add_argument("--repeat", type=int, default=0, help="play --first so often, each in a new process: equal?")
    parser.add_argument("--summarise", type=Path, help="play nothing: add up what --json wrote to this file")
    for name in ("peers", "byzantine", "rounds"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Order, name), help="see btard-peer simulate")
    for name in ("faults", "attack", "task"):
        parser.add_argument(f"--{name}", default=getattr(Order, name), help="see btard-peer simulate")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
