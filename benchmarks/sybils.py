"""
Sybils that skip the gradient work: does one come through probation, and what do they cost the members?

Simulated swarms of the real peer code on a virtual clock, with the parameters of a real run but for the work of
tickets, which is cheap here: an attacker for whom they cost nothing. All Sybils dial from one host, hold a valid
ticket each, and follow the run as honest candidates do; only their samples are made up.

    odds    many seeds with Sybils: how many were admitted, banned, lapsed and promoted. Equal questions of the peers
            of one process are worked out once (btard.sim.memo): this changes no answer, and no cost is read here.
    cost    some seeds with and without Sybils in one run, without that memory. Bytes: heads and payloads that members
            send and receive. CPU: the thread's clock, read whenever another peer's task goes on and whenever a message
            reaches another peer, so that the Sybils' own work is told from the members'. A gradient costs nothing
            here, so gradients are counted beside it, and tickets evaluated; encryption is not in it. Calls of
            functions by the members are counted as well, in runs of their own: they depend neither on the machine's
            load nor on its caches, which 66 peers in one process use in another way than 16. The second half of the
            rounds is shown by itself: what comes once, as links and tickets do, is over by then.

Exit status 1 if a Sybil is promoted, a member banned, a run unfinished or without one state, or if bytes, CPU seconds
or gradients of all compared seeds together grow by a tenth or more.
"""

import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import structlog
import torch
import trio
import typer
from torch import Tensor
from typer import Option

from benchmarks.growth import compute_growth, find_growth
from benchmarks.report import describe, write
from btard.attacks import IdleCandidate
from btard.identity import PeerId, Puzzle
from btard.net import Message
from btard.net.requests import decode_answer, decode_request
from btard.net.session import ANSWER, REQUEST
from btard.rules.admission import compute_skipping_odds
from btard.rules.config import RunConfig
from btard.rules.evidence import DepartureKind
from btard.rules.roster import Roster
from btard.sim import Outcome, PeerOutcome, SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.sim.disk import ledgers_in_memory
from btard.sim.joining import CHEAP
from btard.sim.memo import Memory
from btard.sim.play import rare_collections
from btard.sim.power import RUNNING
from btard.sim.tasks import StubTask
from btard.swarm.events import Admitted, Event, RoundDone
from btard.swarm.frames import Kind

COMES_S = 8.0
"""When the first Sybil comes, in virtual seconds; the others follow within as long again."""
Result = dict[str, Any]
COSTS = "bytes", "calls", "cpu_ms", "gradients"


@dataclass(frozen=True)
class Crowd:
    """A swarm, and the Sybils that come to it."""

    members: int
    sybils: int
    rounds: int
    latency_s: float
    elements: int


@dataclass(eq=False)
class Meter(trio.abc.Instrument):
    """CPU seconds of each peer, bytes of the members by kind of message, and their gradients and evaluations."""

    members: int
    cpu_s: Counter[int] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    gradients: int = 0
    evaluations: int = 0
    profile: Profile | None = None
    middle: Result = field(default_factory=dict)
    _owner: int = -1
    _since: float = field(default_factory=time.thread_time)

    def switch(self, owner: int) -> None:
        """Let what is worked from now on be ``owner``'s; -1 is the simulator."""
        if self.profile:
            self.profile.disable()
        now = time.thread_time()
        self.cpu_s[self._owner] += now - self._since
        self._owner, self._since = owner, now
        if self.profile and 0 <= owner < self.members:
            self.profile.enable()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See ``trio.abc.Instrument``."""
        self.switch(task.context.get(RUNNING, -1))

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        """See ``trio.abc.Instrument``."""
        self.switch(-1)

    def read(self) -> Result:
        """What the members have cost so far."""
        return {
            "bytes": sum(self.bytes.values()),
            "cpu_ms": 1e3 * self.members_cpu_s,
            "gradients": self.gradients,
            "evaluations": self.evaluations,
            "calls": sum(entry.callcount for entry in self.profile.getstats()) if self.profile else 0,
        }

    @property
    def members_cpu_s(self) -> float:
        """What the members worked."""
        return sum(seconds for owner, seconds in self.cpu_s.items() if 0 <= owner < self.members)

    @property
    def is_member(self) -> bool:
        """Whether a member's task calls."""
        return 0 <= RUNNING.get(-1) < self.members


class CountedTask(StubTask):
    """A task that counts the members' gradients."""

    def __init__(self, elements: int, meter: Meter) -> None:
        super().__init__(elements)
        self._meter = meter

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """See ``StubTask``."""
        self._meter.gradients += self._meter.is_member
        return super().gradient(parameters, seed)


def build(crowd: Crowd, seed: int, directory: Path, meter: Meter) -> SimulatedSwarm:
    """Return a swarm that nobody interferes with but Sybils; it ends when the last member does."""
    size, left = crowd.members, set(range(crowd.members))
    joins = {size + index: COMES_S * (1 + index / crowd.sybils) for index in range(crowd.sybils)}

    def note_end(outcome: PeerOutcome) -> None:
        left.discard(outcome.index)
        if not left:
            swarm.stop()

    def note_middle(index: int, event: Event) -> None:
        if index == 0 and isinstance(event, RoundDone) and event.round == crowd.rounds // 2:
            meter.middle = meter.read()

    swarm = SimulatedSwarm(
        {"genesis_size": size, "rounds": crowd.rounds, "tau": 5.0, "delta": 50.0, **CHEAP},
        lambda: CountedTask(crowd.elements, meter),
        directory,
        seed=seed,
        joins=joins,
        delivery=lambda _sender, _receiver, _message: crowd.latency_s,
        watch=note_middle,
        on_end=note_end,
    )
    for index in joins:
        swarm.conducts[index] = IdleCandidate(1, seed, swarm.identities[index].peer_id, swarm.config.projections)
    return swarm


@contextmanager
def counted_evaluations(meter: Meter) -> Iterator[None]:
    """Count the tickets that members evaluate."""
    original = Puzzle.is_solved_by

    def is_solved_by(puzzle: Puzzle, nonce: int) -> bool:
        meter.evaluations += meter.is_member
        return original(puzzle, nonce)

    Puzzle.is_solved_by = is_solved_by  # type: ignore[method-assign]
    try:
        yield
    finally:
        Puzzle.is_solved_by = original  # type: ignore[method-assign]


def describe_outcome(swarm: SimulatedSwarm, outcome: Outcome, crowd: Crowd) -> Result:
    """Return what became of the Sybils, as the members saw it."""
    first = outcome.peers[0]
    sybils = {peer.peer: peer for peer in outcome.peers[crowd.members :]}
    seals = [event.result.seal for event in first.rounds]
    admitted = {PeerId(item.peer) for seal in seals for item in seal.candidates}
    banned = {swarm.identities[index].peer_id for index in outcome.departures(DepartureKind.BAN)}
    members = {peer for event in first.rounds for peer in event.result.roster.members}
    last = {PeerId(item.peer) for item in seals[-1].candidates}
    lives = [event.round - _find_admission(sybils[event.peer]) for event in first.departures if event.peer in sybils]
    return {
        "rounds": len(first.rounds),
        "states": len(outcome.state_roots),
        "admitted": len(admitted),
        "banned": len(banned & sybils.keys()),
        "members_banned": len(banned - sybils.keys()),
        "lapsed": len(admitted - banned - members - last),
        "still_on_probation": len(last - banned),
        "promoted": len(members & sybils.keys()),
        "rounds_until_ban": lives,
    }


def _find_admission(peer: Any) -> int:
    return next((event.round for event in peer.events if isinstance(event, Admitted)), 0)


def play_quickly(crowd: Crowd, seed: int) -> Result:
    """Return what becomes of the Sybils of one seed."""
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    memory = Memory(lambda _: None)
    with tempfile.TemporaryDirectory() as directory, memory.installed(), rare_collections(), ledgers_in_memory():
        swarm = build(crowd, seed, Path(directory), Meter(crowd.members))
        outcome = run_deterministically(swarm.run, seed)
        return {"seed": seed, **describe_outcome(swarm, outcome, crowd)}


def play_measured(crowd: Crowd, seed: int, profile: Profile | None = None) -> Result:
    """Return what one seed costs the members, per round; with ``profile`` CPU times mean nothing, and calls count."""
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    meter = Meter(crowd.members, profile=profile)
    with (
        tempfile.TemporaryDirectory() as directory,
        rare_collections(),
        ledgers_in_memory(),
        counted_evaluations(meter),
    ):
        swarm = build(crowd, seed, Path(directory), meter)
        names = Names()
        index = {identity.peer_id: place for place, identity in enumerate(swarm.identities)}

        def count(sender: PeerId, receiver: PeerId, message: Message) -> float:
            size = len(message.head) + (len(message.payload) if message.payload is not None else 0)
            meter.bytes[names.find(sender, receiver, message)] += size * sum(
                index[peer] < crowd.members for peer in (sender, receiver)
            )
            return crowd.latency_s

        swarm.network.delivery = count
        swarm.network.on_arrival = lambda _sender, receiver, _message, _now: meter.switch(index[receiver])

        async def run() -> Outcome:
            trio.lowlevel.add_instrument(meter)
            meter.switch(RUNNING.get(-1))
            outcome = await swarm.run()
            trio.lowlevel.remove_instrument(meter)
            return outcome

        outcome = run_deterministically(run, seed)
        times, rounds, total = sorted(event.wall_s for event in outcome.peers[0].rounds), crowd.rounds, meter.read()
        second = {name: (total[name] - meter.middle[name]) / (rounds - rounds // 2) for name in total}
        return {
            **describe_outcome(swarm, outcome, crowd),
            **{name: value / rounds for name, value in total.items()},
            "second_half": second,
            "by_kind": {kind: size / rounds for kind, size in meter.bytes.most_common()},
            "round_s": times[len(times) // 2],
            "longest_round_s": times[-1],
        }


class Names:
    """Names messages by their kind, and answers by that of their request."""

    def __init__(self) -> None:
        self._asked: dict[tuple[PeerId, PeerId, int], str] = {}

    def find(self, sender: PeerId, receiver: PeerId, message: Message) -> str:
        """Return the kind of a message that is sent."""
        if message.kind == REQUEST:
            number, kind, _ = decode_request(message.head)
            self._asked[receiver, sender, number] = Kind(kind).name
            return f"{Kind(kind).name} asked"
        if message.kind == ANSWER:
            return f"{self._asked.get((sender, receiver, decode_answer(message.head)[0]))} answered"
        return Kind(message.kind).name


def summarise(crowd: Crowd, seeds: list[Result]) -> Result:
    """Return the sums over all seeds, and what the formula says of one Sybil."""
    names = "admitted", "banned", "members_banned", "lapsed", "still_on_probation", "promoted"
    config = RunConfig(genesis_size=crowd.members)
    tolerated = Roster(tuple(PeerId(bytes([index]) * 32) for index in range(crowd.members))).tolerated(None)
    lives = sorted(life for seed in seeds for life in seed["rounds_until_ban"])
    return {
        "seeds": len(seeds),
        **{name: sum(seed[name] for seed in seeds) for name in names},
        "rounds_until_ban": {"median": lives[len(lives) // 2], "most": lives[-1]} if lives else {},
        "unfinished_or_split": [s["seed"] for s in seeds if s["rounds"] != crowd.rounds or s["states"] != 1],
        "promoted_by_formula": compute_skipping_odds(config.check_rate, config.probation, crowd.members, tolerated),
    }


def compare(crowd: Crowd, seed: int, *, counts_calls: bool) -> Result:
    """Return what a seed costs without and with its Sybils, and the growth of each figure."""
    sizes = sorted((0, crowd.sybils), reverse=seed % 2 == 0)  # who is played first gains or loses by that
    played = {size: play_measured(replace(crowd, sybils=size), seed) for size in sizes}
    for size, figures in played.items() if counts_calls else ():
        counted = play_measured(replace(crowd, sybils=size), seed, Profile())
        figures["calls"], figures["second_half"]["calls"] = counted["calls"], counted["second_half"]["calls"]
    without, given = played[0], played[crowd.sybils]
    growth = compute_growth(without, given, (*COSTS, "round_s"))
    growth["second_half"] = compute_growth(without["second_half"], given["second_half"], COSTS)
    return {"seed": seed, "growth": growth, "without": without, "with": given}


def add_up(costs: list[Result]) -> Result:
    """Return the growth of each figure over all compared seeds together."""
    without, given = ({name: sum(cost[way][name] for cost in costs) for name in COSTS} for way in ("without", "with"))
    return {"seeds": len(costs), **compute_growth(without, given, COSTS)}


def find_problems(odds: Result, growth: Mapping[str, float]) -> list[str]:
    """Return what Sybils have reached that they may not."""
    problems = [f"{odds['promoted']} Sybils were promoted"] if odds["promoted"] else []
    problems += [f"{odds['members_banned']} members were banned"] if odds["members_banned"] else []
    if odds["unfinished_or_split"]:
        problems.append(f"unfinished, or without one state, are seeds {odds['unfinished_or_split']}")
    return problems + find_growth(growth)


def main(
    members: Annotated[int, Option(min=4, help="members at genesis, all honest")] = 16,
    sybils: Annotated[int, Option(min=1, help="identities that skip the gradient work")] = 50,
    rounds: Annotated[int, Option(min=1, help="rounds of each run; probation takes 33 after an admission")] = 100,
    seeds: Annotated[int, Option(min=0, help="runs in which nobody may be promoted")] = 100,
    compared: Annotated[int, Option(min=0, help="seeds played with and without Sybils, for what they cost")] = 2,
    latency: Annotated[
        float, Option(min=0.0, help="seconds that every message takes; a round takes six of them")
    ] = 0.25,
    elements: Annotated[int, Option(min=16, help="length D of the vector")] = 32,
    jobs: Annotated[int, Option(min=1, help="processes at a time")] = 1,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
    *,
    counts_calls: Annotated[
        bool, Option("--calls/--no-calls", help="count the calls of functions too, in two more runs of a compared seed")
    ] = True,
) -> None:
    """Let Sybils that skip the gradient work come; fail if one is promoted, or if members spend a tenth more."""
    crowd = Crowd(members, sybils, rounds, latency, elements)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        price = partial(compare, counts_calls=counts_calls)
        costs = [
            _tell(f"cost {result['seed']}", result)
            for result in pool.map(price, [crowd] * compared, range(1, compared + 1))
        ]
        played = [
            _tell(f"seed {result['seed']}", result)
            for result in pool.map(play_quickly, [crowd] * seeds, range(1, seeds + 1))
        ]
    result = {
        **describe("sybils"),
        "odds": summarise(crowd, played),
        "cost": costs,
        "growth": add_up(costs),
        "runs": played,
    }
    print(json.dumps({name: result[name] for name in ("odds", "growth")}, indent=2))
    write(path, result)
    problems = find_problems(result["odds"], result["growth"])
    print("\n".join(problems or ["all is well"]))
    if problems:
        raise typer.Exit(1)


def _tell(name: str, result: Result) -> Result:
    print(name, json.dumps(result.get("growth", result)), file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    typer.run(main)
