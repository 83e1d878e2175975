"""
What Sybils cost the members of a real swarm: the processes of a demo, with and without them, one after the other.

Every peer is a process, members and Sybils alike, started as the demo does, with one run file for both swarms: all of
it as in any run but for the work of tickets, which is small. Sybils come over the first third of the rounds. CPU
seconds of the members' processes are Linux's, from the round in which all of them have begun to the last but one;
bytes are what each member said in the end that it has sent. Both are per member and round. Processes that take turns on
few cores disturb each other's caches, which is told as growth too. Exit status 1 if either grows by a tenth or more, if
a Sybil becomes a member, or if the members do not end with one state.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from typer import Option

from benchmarks.growth import compute_growth, find_growth
from benchmarks.processes import Peer, Swarm, run_swarm
from benchmarks.report import describe, write
from benchmarks.usage import read_cpu_s
from btard.cli.demo_plan import Settings
from btard.cli.demo_strangers import FEWEST_ROUNDS, ROUNDS_PER_STRANGER
from btard.cli.demo_ways import read_ways
from btard.rules.config import RunConfig

Result = dict[str, Any]
FIELDS = {
    "identity_bits": 8,
    "ticket_bits": 3,
    "ticket_memory_kib": 256,
    **{name: getattr(RunConfig(), name) for name in ("check_rate", "probation", "state_interval")},
}
"""Of both run files: tickets for an instant, and everything else as in any run."""
COSTS = "bytes", "cpu_ms"
PATIENCE_S = 3600.0


@dataclass
class Play:
    """A swarm whose Sybils are let go when their round has come."""

    swarm: Swarm

    @property
    def members(self) -> list[Peer]:
        """Who is there from the beginning."""
        return [peer for peer in self.swarm.peers if not peer.player.is_stranger]

    @property
    def round(self) -> int:
        """The newest round that all members have finished."""
        return min(peer.round for peer in self.members)

    def wait(self, what: str, number: int) -> None:
        """Return once all members have finished a round; let Sybils go meanwhile."""
        waiting = [peer for peer in self.swarm.peers if peer.player.is_stranger]

        def is_done() -> bool:
            for sybil in [peer for peer in waiting if (peer.player.comes_after or 0) <= self.round]:
                sybil.let_go()
                waiting.remove(sybil)
            return self.round >= number

        self.swarm.wait_for(what, is_done, PATIENCE_S)

    def measure(self, rounds: int) -> Result:
        """Return what a member spends in a round, and what became of the Sybils."""
        processes = [peer.process for peer in self.members if peer.process is not None]
        first, begun = self.round, read_cpu_s(processes)
        self.wait("the last round but one", rounds - 1)
        spent, counted = read_cpu_s(processes) - begun, self.round - first
        self.swarm.wait_for("the end", lambda: all(peer.of("finished") for peer in self.members))
        ends = [peer.of("finished")[0] for peer in self.members]
        ways = read_ways([self.members[0].player.ledger]).values()
        return {
            "cpu_ms": 1e3 * spent / counted / len(processes),
            "bytes": fmean(sum(end["bytes"].values()) / end["rounds"] for end in ends),
            "admitted": sum(way.joined_in is not None for way in ways),
            "promoted": sum(way.promoted_in is not None for way in ways),
            "states": len({end["state"] for end in ends}),
        }


def play(settings: Settings) -> Result:
    """Run one swarm to its end."""
    with run_swarm(settings) as swarm:
        return Play(swarm).measure(settings.rounds)


def find_problems(plays: Sequence[Result], growth: dict[str, float]) -> list[str]:
    """Return what Sybils have reached that they may not."""
    problems = [f"{each['promoted']} Sybils were promoted" for each in plays if each["promoted"]]
    problems += [f"{each['states']} states in the end" for each in plays if each["states"] != 1]
    return problems + find_growth(growth)


def main(
    members: Annotated[int, Option(min=4, max=64, help="members at genesis, all honest")] = 16,
    sybils: Annotated[
        int, Option(min=1, max=50, help="strangers that skip the gradient work; processes of some 250 MB each")
    ] = 50,
    rounds: Annotated[
        int | None, Option(min=1, help="of each run; 60 and ten for each Sybil at least, and unless given")
    ] = None,
    seed: Annotated[int, Option(help="fixes the first parameters; of even ones the swarm with Sybils is first")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Compare the members of two real swarms; fail if Sybils cost them a tenth or more."""
    number = rounds or FEWEST_ROUNDS + ROUNDS_PER_STRANGER * sybils
    settings = Settings(members, 0, rounds=number, seed=seed, sybils=sybils, fields=FIELDS)
    played = {count: play(replace(settings, sybils=count)) for count in sorted((0, sybils), reverse=seed % 2 == 0)}
    growth = compute_growth(played[0], played[sybils], COSTS)
    problems = find_problems(list(played.values()), growth)
    result = {"growth": growth, "without": played[0], "with": played[sybils], "problems": problems}
    print(json.dumps(result, indent=2))
    write(path, describe("sybil_processes", seed) | result)
    if problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
