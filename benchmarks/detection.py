"""
Rounds until a gradient attacker is banned, beside the law.

Each run is a simulated swarm of the real peer code on a virtual clock: attackers flip their gradients from
round 2 on, and the run ends when the last of them is banned. The law of the design: a round finds a given
attacker with probability m/(n-1) * (n-b)/n; n and b shrink with every ban. Rounds are counted from the first
attack to the COMMIT in which the validator accuses.
"""

import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Annotated

import structlog
import torch
import trio
import trio.testing
import typer
from typer import Option

from benchmarks.report import describe, write
from btard.attacks import make_attacker
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.events import Departed, Event

FIRST_ROUND = 2
MAX_ROUNDS = 400
RESAMPLES = 4000


@dataclass(frozen=True)
class Result:
    """The mean over all attackers, its 95% interval (bootstrap over runs), and what the law says."""

    attack: str
    peers: int
    byzantine: int
    validators: int
    runs: int
    mean_rounds: float
    low: float
    high: float
    law_rounds: float
    false_bans: int
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether the law lies in the interval."""
        return self.low <= self.law_rounds <= self.high


def compute_law(peers: int, byzantine: int, validators: int) -> float:
    """Return the mean rounds to ban over all attackers, who leave one by one."""
    elapsed, times = 0.0, []
    for left in range(byzantine, 0, -1):
        n, m = peers - (byzantine - left), validators
        elapsed += 1 / (left * m / (n - 1) * (n - left) / n)
        times.append(elapsed)
    return fmean(times)


def compute_interval(means: list[float]) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of resampled means."""
    random = Random(0)
    resampled = sorted(fmean(random.choices(means, k=len(means))) for _ in range(RESAMPLES))
    return resampled[math.floor(0.025 * RESAMPLES)], resampled[math.ceil(0.975 * RESAMPLES) - 1]


async def run_until_found(
    attack: str, peers: int, byzantine: int, validators: int, seed: int, directory: Path
) -> tuple[list[int], int]:
    """Return each attacker's rounds from the first attack to its ban, and how many honest peers left."""
    left: dict[bytes, Departed] = {}
    scope = trio.CancelScope()

    def watch(_: int, event: Event) -> None:
        if isinstance(event, Departed) and event.kind is DepartureKind.BAN:
            left.setdefault(event.peer, event)
        if suspects <= set(left):
            scope.cancel()

    options = {
        "genesis_size": peers, "rounds": MAX_ROUNDS, "validators": validators,
        "max_byzantine": byzantine, "tau": 3.0, "delta": 40.0,
    }  # fmt: skip
    swarm = SimulatedSwarm(options, lambda: LinearTask(100), directory, seed=seed, watch=watch)
    chosen = Random(seed).sample(range(peers), byzantine)
    suspects = {swarm.identities[index].peer_id for index in chosen}
    for index in chosen:
        me = swarm.identities[index].peer_id
        swarm.conducts[index] = make_attacker(attack, seed=seed, first_round=FIRST_ROUND, config=swarm.config, me=me)
    with scope:
        await swarm.run()
    rounds = [left[peer].round - FIRST_ROUND if peer in left else MAX_ROUNDS for peer in sorted(suspects)]
    return rounds, len(set(left) - suspects)


def measure(attack: str, peers: int, byzantine: int, validators: int, runs: int) -> Result:
    """Return the figures of ``runs`` swarms with seeds 0, 1, 2 and so on."""
    started, means, false_bans = time.monotonic(), [], 0
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as directory:
            clock = trio.testing.MockClock(autojump_threshold=0)
            arguments = (attack, peers, byzantine, validators, seed, Path(directory))
            rounds, honest = trio.run(run_until_found, *arguments, clock=clock)
        means.append(fmean(rounds))
        false_bans += honest
        print(f"seed {seed}: {rounds}", file=sys.stderr)
    low, high = compute_interval(means)
    law = compute_law(peers, byzantine, validators)
    elapsed = time.monotonic() - started
    return Result(attack, peers, byzantine, validators, runs, fmean(means), low, high, law, false_bans, elapsed)


def format_table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| attack | n | b | m | runs | mean rounds to ban | 95% interval | law | false bans |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.attack} | {r.peers} | {r.byzantine} | {r.validators} | {r.runs} | {r.mean_rounds:.1f} "
        f"| {r.low:.1f} to {r.high:.1f} | {r.law_rounds:.1f} | {r.false_bans} |"
        for r in results
    ]
    return "\n".join(lines)


def main(
    attack: Annotated[list[str] | None, Option(help="sign-flip or random-direction; repeat for several")] = None,
    peers: Annotated[int, Option(help="roster size n")] = 8,
    byzantine: Annotated[list[int] | None, Option(help="attackers b; repeat for several")] = None,
    validators: Annotated[int, Option(help="validators per round m")] = 1,
    runs: Annotated[int, Option(help="simulated runs, one seed each")] = 20,
    output: Annotated[Path | None, Option("--json", help="write the figures here as JSON")] = None,
) -> None:
    """Measure how many rounds gradient attackers last, beside the law m/(n-1) * (n-b)/n."""
    torch.set_num_threads(1)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    results = [
        measure(kind, peers, count, validators, runs)
        for kind in attack or ["sign-flip"]
        for count in byzantine or [1, 3]
    ]
    print(format_table(results))
    cases = [{**asdict(result), "agrees": result.agrees} for result in results]
    write(output, {**describe("detection"), "cases": cases})
    if any(result.false_bans for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
