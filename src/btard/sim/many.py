"""Many seeds, on all cores: one process per core plays one scenario after another, and all is added up."""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from btard.sim.drawing import Order

TOLD = ("rounds_done", "attempts", "recoveries", "fallbacks", "halts", "crashes", "restarts", "returned")
"""What is added up over the seeds."""


@dataclass
class Tally:
    """What happened in all seeds with something in common."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, counts: Counter[str]) -> None:
        """Take in one more seed."""
        self.seeds += 1
        self.counts += counts


@dataclass
class Summary:
    """The results so far: in total, by kind of fault, by kind of adversary."""

    total: Tally = field(default_factory=Tally)
    faults: dict[str, Tally] = field(default_factory=dict)
    adversaries: dict[str, Tally] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Take in the JSON of one report."""
        counts = Counter({name: result.get(name, 0) for name in TOLD})
        counts["bans"], counts["removals"] = len(result["bans"]), len(result["removals"])
        self.total.add(counts)
        scenario = result["scenario"]
        for fault in scenario["faults"] or ["none"]:
            self.faults.setdefault(fault, Tally()).add(counts)
        for index, kind in scenario["adversaries"].items():
            self.adversaries.setdefault(kind, Tally()).add(_follow(int(index), result))
        if result["violations"]:
            self.failures.append(result)

    def describe(self) -> list[str]:
        """The tables in lines of text."""
        columns = (*TOLD, "bans", "removals")
        lines = [f"{'fault':<20}{'seeds':>8}" + "".join(f"{name.removesuffix('_done'):>12}" for name in columns)]
        for name, tally in [*sorted(self.faults.items()), ("all together", self.total)]:
            lines.append(f"{name:<20}{tally.seeds:>8}" + "".join(f"{tally.counts[column]:>12}" for column in columns))
        ends = ("acted", "ban", "removal", "stayed", "recoveries")
        lines += ["", f"{'adversary':<44}{'peers':>8}" + "".join(f"{name:>12}" for name in ends)]
        for name, tally in sorted(self.adversaries.items()):
            lines.append(f"{name:<44}{tally.seeds:>8}" + "".join(f"{tally.counts[end]:>12}" for end in ends))
        return lines


def _follow(index: int, result: dict[str, Any]) -> Counter[str]:
    """What became of one adversary."""
    banned = index in {item["peer"] for item in result["bans"]}
    removed = index in {item["peer"] for item in result["removals"]} and not banned
    acted = str(index) in result["acts"]
    stayed = acted and not banned and not removed
    return Counter(acted=acted, ban=banned, removal=removed, stayed=stayed, recoveries=result.get("recoveries", 0))


def play_seed(order: Order, seed: int) -> dict[str, Any]:
    """Play one scenario in this process and return its report as JSON has it; a bug of ours is a violation too."""
    import logging

    import structlog

    from btard.sim.play import play_in_memory

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    scenario = order.draw(seed)
    try:
        return play_in_memory(scenario).as_json()
    except Exception as error:  # noqa: BLE001  the campaign must name the seed, whatever broke
        broken = {"invariant": "simulator", "round": 0, "detail": f"{type(error).__name__}: {error}"}
        empty = {"bans": [], "removals": [], "acts": {}, "rounds_done": 0}
        return {"seed": seed, "scenario": scenario.as_json(), "violations": [broken], **empty}


def play_seeds(order: Order, seeds: range, jobs: int, *, keeps_going: bool) -> Iterator[dict[str, Any]]:
    """Yield the result of each seed as it ends; after a violation no new one begins, unless told to keep going."""
    context, waiting, running = (
        multiprocessing.get_context("spawn"),
        list(reversed(seeds)),
        set[Future[dict[str, Any]]](),
    )
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.add(pool.submit(play_seed, order, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if result["violations"] and not keeps_going:
                    waiting.clear()
                yield result
