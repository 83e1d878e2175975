"""
A real swarm that loses processes all the time: who is killed comes back, and the run goes on.

    each   every --kill-every seconds an honest peer is killed and started again at once
    long   one honest peer is killed and comes back only after the others have removed it
    all    every process is killed at the same moment, and all are started again
    churn  every --kill-every seconds three honest peers are killed and started again after up to half as long; whoever
           was removed meanwhile is started once more, and comes back as a candidate

At the end: no honest peer banned, none removed but the one of ``long`` and those of ``churn``, one state in the newest
round that all have finished, and every honest ledger audits; after ``churn`` all honest peers are members again.
Exit status 1 if any of that does not hold.
"""

import json
import random
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from benchmarks.processes import Peer, Swarm, run_swarm
from benchmarks.report import describe, write
from btard.cli.demo_plan import MIXED, OUTPUT, Settings
from btard.cli.exits import ExitCode
from btard.swarm.audit import audit_ledger

MANY = 1_000_000
VICTIMS = 3
CHEAP = {"identity_bits": 8, "ticket_bits": 4, "ticket_memory_kib": 1024, "ticket_window": 1024}
"""Work for a ticket that sixteen peers on two cores can afford: what is tried here is the coming back."""


class Mode(StrEnum):
    """What happens to the processes."""

    EACH = "each"
    LONG = "long"
    ALL = "all"
    CHURN = "churn"


def kill_each(swarm: Swarm, seconds: float, kill_every: float, source: random.Random) -> None:
    """Kill an honest peer now and then and start it again at once."""
    end = time.monotonic() + seconds
    while time.monotonic() + kill_every < end:
        moment = time.monotonic() + source.uniform(0.5, 1.0) * kill_every
        swarm.listen_until(moment)
        victim = source.choice(find_honest(swarm))
        victim.kill()
        victim.start()
        print(f"round {find_newest_round(swarm)}: killed and started peer {victim.player.number}", flush=True)
        swarm.listen_until(moment + 0.5 * kill_every)
    swarm.listen_until(end)


def kill_for_long(swarm: Swarm, seconds: float, source: random.Random) -> Peer:
    """Kill one honest peer, start it again when it has been removed, and return it."""
    swarm.listen_until(time.monotonic() + seconds / 2)
    victim = source.choice([peer for peer in find_honest(swarm) if peer.player.number])
    victim.kill()
    others = [peer for peer in find_honest(swarm) if peer is not victim]
    swarm.wait_for("the removal", lambda: all(victim.player.peer in find_departed(peer) for peer in others))
    victim.start()
    swarm.wait_for("the removed peer to end", lambda: not victim.is_running)
    swarm.listen_until(time.monotonic() + seconds / 2)
    return victim


def kill_all(swarm: Swarm, seconds: float) -> None:
    """Kill every process at once and start all again."""
    swarm.listen_until(time.monotonic() + seconds / 2)
    running = [peer for peer in swarm.peers if peer.is_running]
    for peer in running:
        peer.kill()
    swarm.listen()
    before = find_newest_round(swarm)
    for peer in running:
        peer.start()
    print(f"round {before}: killed and started all {len(running)} peers", flush=True)
    honest = find_honest(swarm)
    swarm.wait_for("rounds after all came back", lambda: all(peer.round > before + 1 for peer in honest))
    swarm.listen_until(time.monotonic() + seconds / 2)


def churn(swarm: Swarm, seconds: float, kill_every: float, source: random.Random) -> None:
    """Kill three at a time, let them come back after a while, and wait until all are members again."""
    end, returns = time.monotonic() + seconds, dict[int, float]()
    while time.monotonic() < end:
        running = [peer for peer in find_honest(swarm) if peer.is_running]
        for victim in source.sample(running, min(VICTIMS, len(running))):
            victim.kill()
            away_s = source.uniform(0, kill_every / 2)
            returns[victim.player.number] = time.monotonic() + away_s
            print(
                f"round {find_newest_round(swarm)}: killed peer {victim.player.number} for {away_s:.0f} s", flush=True
            )
        _bring_back(swarm, returns, time.monotonic() + kill_every)
    _bring_back(swarm, returns, time.monotonic() + kill_every)
    swarm.wait_for("all to be members again", lambda: _bring_back_now(swarm, returns) and _are_members(swarm), 900.0)


def _bring_back(swarm: Swarm, returns: dict[int, float], until: float) -> None:
    """Until a moment, start whoever is due, and again whoever ended because it had been removed."""
    while time.monotonic() < until:
        _bring_back_now(swarm, returns)
        swarm.listen_until(time.monotonic() + 0.5)


def _bring_back_now(swarm: Swarm, returns: dict[int, float]) -> bool:
    """Return whether everybody runs."""
    for peer in find_honest(swarm):
        if not peer.is_running and returns.get(peer.player.number, 0.0) <= time.monotonic():
            peer.start()
    return all(peer.is_running for peer in find_honest(swarm))


def _are_members(swarm: Swarm) -> bool:
    """Return whether all honest peers have finished one of the newest rounds."""
    newest = find_newest_round(swarm)
    return all(peer.round >= newest - 3 for peer in find_honest(swarm))


def find_honest(swarm: Swarm) -> list[Peer]:
    """Return the peers without an attack."""
    return [peer for peer in swarm.peers if peer.player.attack is None]


def find_departed(peer: Peer) -> dict[str, str]:
    """Return who left, as one peer logged it, and how."""
    return {event["peer"]: event["kind"] for event in peer.of("departed")}


def find_newest_round(swarm: Swarm) -> int:
    """Return the newest round that some honest peer has finished."""
    return max(peer.round for peer in find_honest(swarm))


def judge(swarm: Swarm, expected_gone: Peer | None, *, may_return: bool = False) -> dict[str, Any]:
    """Return what became of everybody, and what is wrong with that; with ``may_return`` removals are none."""
    honest = [peer for peer in find_honest(swarm) if peer is not expected_gone]
    names = {peer.player.peer for peer in honest}
    common = min(peer.round for peer in honest)
    states = {event["state"] for peer in honest for event in peer.of("round") if event["round"] == common}
    departed = {peer: kind for item in honest for peer, kind in find_departed(item).items()}
    lost = {peer for peer, kind in departed.items() if not (may_return and kind == "removal")}
    problems = [f"honest peer {peer[:8]} left: {departed[peer]}" for peer in sorted(names & lost)]
    problems += [
        f"attacker {p.player.number} ({p.player.attack}) is still there" for p in find_remaining(swarm, departed)
    ]
    problems += [] if len(states) == 1 else [f"{len(states)} states in round {common}"]
    for peer in honest:
        problems += [f"peer {peer.player.number}: {problem}" for problem in audit_ledger(peer.player.ledger).problems]
    if expected_gone is not None:
        problems += check_told(expected_gone)
    return {
        "rounds": common,
        "starts": sum(peer.starts for peer in swarm.peers),
        "resumed": sum(len(peer.of("resumed")) for peer in swarm.peers),
        "removals": sum(kind == "removal" for kind in departed.values()),
        "promoted": sum(len(peer.of("promoted")) for peer in swarm.peers),
        "departed": departed,
        "problems": problems,
    }


def find_remaining(swarm: Swarm, departed: dict[str, str]) -> list[Peer]:
    """Return the attackers that acted and are still members."""
    return [
        peer for peer in swarm.peers if peer.player.attack and peer.of("attacked") and peer.player.peer not in departed
    ]


def check_told(peer: Peer) -> list[str]:
    """Return what is wrong with how a removed peer ended."""
    assert peer.process is not None
    if peer.process.returncode == ExitCode.REMOVED:
        return []
    words = (peer.player.directory / OUTPUT).read_text(errors="replace")[-300:]
    return [f"peer {peer.player.number} came back and ended with code {peer.process.returncode}: {words}"]


def run(
    mode: Annotated[Mode, Option(help="what happens to the processes")] = Mode.EACH,
    peers: Annotated[int, Option(min=4, help="processes")] = 16,
    byzantine: Annotated[int, Option(help="attackers, of kinds drawn by the seed")] = 2,
    minutes: Annotated[float, Option(help="how long, the start aside")] = 10.0,
    kill_every: Annotated[float, Option(help="seconds between two kills in mode each")] = 60.0,
    delay_s: Annotated[float, Option(help="delay_s (Delta) of the run: deadlines must bear a restart")] = 5.0,
    seed: Annotated[int, Option(help="draws attackers, victims and moments")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Run a swarm under kills and report what became of it."""
    source = random.Random(seed)
    fields = CHEAP if mode is Mode.CHURN else {}
    settings = Settings(peers, byzantine, MIXED, MANY, seed=seed, delay_s=delay_s, fields=fields)
    with run_swarm(settings) as swarm:
        gone = None
        match mode:
            case Mode.EACH:
                kill_each(swarm, 60 * minutes, kill_every, source)
            case Mode.LONG:
                gone = kill_for_long(swarm, 60 * minutes, source)
            case Mode.ALL:
                kill_all(swarm, 60 * minutes)
            case Mode.CHURN:
                churn(swarm, 60 * minutes, kill_every, source)
        for peer in swarm.peers:
            peer.stop()
        swarm.listen()
        result = judge(swarm, gone, may_return=mode is Mode.CHURN)
        result |= describe("endurance", seed)
        print(json.dumps(result, indent=2))
        write(path, result)
        if result["problems"]:
            raise typer.Exit(1)  # the swarm's files stay, for a look


if __name__ == "__main__":
    typer.run(run)
