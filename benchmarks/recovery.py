"""
What a crash costs a real swarm: from the deadline of the phase to the decision, in units of delay_s.

Peers are killed with SIGKILL one after another while rounds run; the others notice at a deadline, agree in a
recovery and go on. A HALT is said three delay_s after the deadline that it names, so the deadline is known
from the log of whoever halts first.
"""

import math
import random
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from benchmarks.processes import Event, Peer, Swarm, run_swarm
from benchmarks.report import describe, write
from btard.cli.demo_plan import Settings

HALT_AFTER = 3.0
"""Design 5: a HALT is said so many delay_s after the deadline."""
MANY = 1_000_000


@dataclass(frozen=True)
class Crash:
    """One crash, in seconds: from the deadline to the last decision, and without rounds in all."""

    stop_s: float
    pause_s: float


def measure(swarm: Swarm, victim: Peer, delay_s: float) -> Crash:
    """Kill one peer and return what the others lost by it."""
    others = [peer for peer in swarm.peers if peer.is_running and peer is not victim]
    victim.kill()
    killed = time.time()
    swarm.wait_for("the recovery", lambda: all(_has_gone_on(peer, killed) for peer in others))
    halted = min(event["t"] for peer in others for event in _since(peer, "halted", killed))
    decided = max(_since(peer, "recovered", killed)[0]["t"] for peer in others)
    return Crash(decided - halted + HALT_AFTER * delay_s, max(_find_pause(peer) for peer in others))


def _since(peer: Peer, name: str, moment: float) -> list[Event]:
    return [event for event in peer.of(name) if event["t"] >= moment]


def _has_gone_on(peer: Peer, killed: float) -> bool:
    decided = _since(peer, "recovered", killed)
    return bool(decided) and bool(_since(peer, "round", decided[0]["t"]))


def _find_pause(peer: Peer) -> float:
    """The longest time between two of its last rounds: those around the newest crash."""
    times = [event["t"] for event in peer.of("round")[-100:]]
    decided = peer.of("recovered")[-1]["t"]
    return next(later - earlier for earlier, later in pairwise(times) if later > decided)


def run(
    peers: Annotated[int, Option(min=3, help="processes")] = 8,
    delay_s: Annotated[float, Option(help="delay_s (Delta) of the run, in seconds")] = 0.5,
    crashes: Annotated[int, Option(min=1, help="crashes to measure")] = 10,
    seed: Annotated[int, Option(help="draws who is killed")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Kill peers of a real swarm and report how long the others stood still."""
    random_source, measured = random.Random(seed), list[Crash]()
    while len(measured) < crashes:
        with run_swarm(Settings(peers=peers, byzantine=0, rounds=MANY, delay_s=delay_s)) as swarm:
            while sum(peer.is_running for peer in swarm.peers) > math.ceil(peers / 2) and len(measured) < crashes:
                victim = random_source.choice([peer for peer in swarm.peers if peer.is_running])
                measured.append(measure(swarm, victim, delay_s))
                crash = measured[-1]
                print(f"crash {len(measured)}: {crash.stop_s / delay_s:.1f} delay_s after the deadline, ", end="")
                print(f"{crash.pause_s:.1f} s without a round", flush=True)
    stops = sorted(crash.stop_s / delay_s for crash in measured)
    result: dict[str, Any] = {
        **describe("recovery", seed),
        "stop_in_delays": {"median": statistics.median(stops), "min": stops[0], "max": stops[-1]},
        "pause_s": {"median": statistics.median(crash.pause_s for crash in measured)},
        "crashes": len(measured),
    }
    print(f"median {result['stop_in_delays']['median']:.1f} delay_s (from {stops[0]:.1f} to {stops[-1]:.1f})")
    write(path, result)


if __name__ == "__main__":
    typer.run(run)
