"""One scenario, played by a swarm of real peers under the eyes of the checkers."""

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import torch
import trio

from btard.attacks import Attacker, Post, SharedCoalition, make_adversary
from btard.errors import BtardError
from btard.identity import PeerId
from btard.net import Message
from btard.rules.config import RunConfig
from btard.rules.evidence import DepartureKind
from btard.sim.checkers import Accountability, Agreement, Checker, NoFalseBan, NothingLost, Progress, Truth, Violation
from btard.sim.clocks import SkewedClock, skewed, true_time
from btard.sim.determinism import run_deterministically
from btard.sim.disk import ledgers_in_memory
from btard.sim.faults import FaultDriver
from btard.sim.gradients import find_paces
from btard.sim.joining import CHEAP
from btard.sim.memo import Memory
from btard.sim.network import NetworkModel
from btard.sim.newcomers import Admissions, Welcome
from btard.sim.power import PowerSupply
from btard.sim.report import Report
from btard.sim.scenario import DELAY_S, Crash, Scenario
from btard.sim.swarm import PROMISED_MS, PeerOutcome, SimulatedSwarm
from btard.sim.tasks import LinearTask, StubTask
from btard.sim.trace import Trace
from btard.swarm.audit import audit_ledger
from btard.swarm.events import Admitted, Departed, Event, Halted, Promoted, Recovered, RoundDone, Sampled
from btard.swarm.frames import Kind
from btard.swarm.ledger import Ledger
from btard.swarm.services import Deadlines
from btard.swarm.workload import Workload

TASKS: Mapping[str, Callable[[], Workload]] = {"stub": lambda: StubTask(32), "linear": lambda: LinearTask(64, 16)}
RADII: Mapping[str, Mapping[str, float]] = {"stub": {"tau": 1.0, "delta": 8.0}, "linear": {"tau": 3.0, "delta": 40.0}}
LOOK_S = 5 * DELAY_S
"""Between looks at whether the swarm stands still; also what attackers get once all honest peers have ended."""


PATIENCE_S = 600.0
"""Virtual seconds without a finished round after which a swarm stands still whose gradients take no time."""
MOST_AT_ONCE = 1_000_000
"""Messages sent at one instant of virtual time that can have an honest reason: 24 peers at once send some thousands."""
RARELY = 10_000_000
"""New objects after which to look for garbage."""
MEMORY = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it


def ignore(line: str) -> None:
    """Be told nothing."""


class Livelock(trio.abc.Instrument):
    """Time stands still while messages go on and on: nothing else would ever notice.

    ``count`` tells how many have arrived so far; ``give_up`` is called after every MOST_AT_ONCE of one instant.
    """

    def __init__(self, count: Callable[[], int], give_up: Callable[[], None]) -> None:
        self._count, self._give_up = count, give_up
        self._now, self._before = -1.0, 0

    def before_io_wait(self, timeout: float) -> None:
        """Look, at every pass of the scheduler, at the messages since time has moved."""
        now, count = true_time(), self._count()
        if now != self._now:
            self._now, self._before = now, count
        elif count - self._before >= MOST_AT_ONCE:
            self._before = count
            self._give_up()


class Play:
    """A scenario in the making: the swarm, its faults, and who watches."""

    def __init__(
        self, scenario: Scenario, directory: Path, trace_file: TextIO | None, tell: Callable[[str], None]
    ) -> None:
        self.scenario, self._tell = scenario, tell
        self.swarm = SimulatedSwarm(
            make_config(scenario),
            TASKS[scenario.task],
            directory,
            seed=scenario.seed,
            watch=self._watch,
            on_end=self._note_end,
            keeps_errors=True,
            leave_after={absence.peer: absence.round for absence in scenario.absences},
            joins=dict.fromkeys(range(scenario.peers, scenario.population)),
            comebacks=find_comebacks(scenario),
            paces=find_paces(scenario),
        )
        self._slowest_ms = max(self.swarm.find_promise(index) for index in range(scenario.peers))
        self.index = {identity.peer_id: place for place, identity in enumerate(self.swarm.identities)}
        self.trace = Trace(self.index, trace_file)
        self._model = NetworkModel(scenario, self.index, self.swarm.config.min_bandwidth)
        network = self.swarm.network
        network.delivery, network.on_arrival = self._model.find_delay, self.trace.note_delivery
        network.on_message = self._witness
        self.power = PowerSupply(self._cut, [crash.peer for crash in scenario.crashes if crash.loses_power])
        self.swarm.before_comeback = self._note_comeback
        self.swarm.before_restart = lambda index: self.power.restore(index, self.swarm.data_dir(index))
        self.faults = FaultDriver(scenario, self.swarm, self._model, self.power)
        self.adversaries = self._make_adversaries()
        self.swarm.conducts.update(self.adversaries)
        self._begin_checks()
        self.memory = Memory(self._nothing_lost.see)
        self.counts: Counter[str] = Counter()
        self.rounds_done = 0
        self._running = {index for index in scenario.honest if index < scenario.peers}
        self._steps: Counter[int] = Counter()
        self.departures: dict[tuple[PeerId, DepartureKind], Departed] = {}

    def _make_adversaries(self) -> dict[int, Attacker]:
        board, config, seed = SharedCoalition(), self.swarm.config, self.scenario.seed
        posts = {
            index: Post(
                config, self.swarm.identities[index].peer_id, seed, self.scenario.attack_from, board, self._slowest_ms
            )
            for index in sorted(self.scenario.adversaries)
        }
        return {
            index: make_adversary(self.scenario.adversaries[index].split("+"), post) for index, post in posts.items()
        }

    def _begin_checks(self) -> None:
        scenario = self.scenario
        crashed = frozenset(crash.peer for crash in scenario.crashes)
        late = frozenset(crash.peer for crash in scenario.crashes if not crash.is_prompt)
        truth = Truth(
            tuple(self.index),
            scenario.adversaries,
            crashed,
            late,
            scenario.is_synchronous,
            scenario.rounds,
            self.swarm.config.validators,
            scenario.peers,
            scenario.entrance,
            find_patience(self.swarm.config, self._slowest_ms),
        )
        self._progress, self._nothing_lost = Progress(truth), NothingLost(truth)
        agreement, no_false_ban = Agreement(truth), NoFalseBan(truth)
        accountability = Accountability(truth, self.find_acts)
        self._admissions = Admissions(truth, self._find_skips)
        self.checkers: tuple[Checker, ...] = (
            agreement,
            no_false_ban,
            accountability,
            self._progress,
            self._nothing_lost,
            self._admissions,
            Welcome(truth, self._admissions.ways),
        )

    def find_acts(self) -> dict[int, int]:
        """Who has cheated, and in which round first."""
        acted = {index: attacker.acted_in_round for index, attacker in self.adversaries.items()}
        return {index: first for index, first in acted.items() if first is not None}

    def _find_skips(self) -> Mapping[int, Collection[int]]:
        """Who skipped the work of which rounds as a candidate."""
        skipped = {index: getattr(attacker, "skipped", None) for index, attacker in self.adversaries.items()}
        return {index: rounds for index, rounds in skipped.items() if rounds}

    @property
    def violations(self) -> tuple[Violation, ...]:
        """All that was found so far."""
        return tuple(violation for checker in self.checkers for violation in checker.violations)

    async def run(self) -> float:
        """Run the swarm until its honest peers have ended, it stands still or breaks; return the virtual seconds."""
        trio.lowlevel.add_instrument(Livelock(lambda: self.trace.deliveries, self._give_up))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.faults.run)
            nursery.start_soon(self._look_around)
            outcome = await self.swarm.run()
            nursery.cancel_scope.cancel()
        return outcome.virtual_s

    async def _look_around(self) -> None:
        while not self._progress.look(true_time()) and self._running:  # noqa: ASYNC110  the end is seen late
            await trio.sleep(LOOK_S)
        self.swarm.stop()

    # --- what happens in the swarm

    def _give_up(self) -> None:
        self._progress.fail(self.rounds_done + 1, f"{MOST_AT_ONCE} messages within one instant")
        self.swarm.stop()

    def _witness(self, message: Message) -> None:
        if message.kind == Kind.MESSAGE:
            self.memory.witness(self.swarm.config.run_id, message.head)

    def _cut(self, crash: Crash) -> None:
        self.trace.note(crash.peer, "crash")
        self.counts["crashes"] += 1
        self.counts["restarts"] += crash.restart_s is not None
        self.swarm.crash(crash.peer, crash.restart_s)

    def _watch(self, index: int, event: Event) -> None:
        self.trace.note_event(index, event)
        if index in self.adversaries:
            return
        for checker in self.checkers:
            checker.observe(index, event)
        self._count(event)
        self._strike(index, event)
        if self.violations:
            self.swarm.stop()

    def _strike(self, index: int, event: Event) -> None:
        """Let begin what waits for this, and let those come who come then."""
        if index >= self.scenario.peers and isinstance(event, Admitted | Sampled | Promoted | RoundDone):
            self._steps[index] += 1
            self.faults.take_step(index, self._steps[index])
        if not isinstance(event, RoundDone):
            return
        if index < self.scenario.peers:
            self.faults.take_step(index, event.round)
        for number in self.faults.end_round(event.round):
            self.trace.note(number, "comes")
            self._admissions.arrive(number, event.round)
            if number in self.scenario.honest:
                self._running.add(number)

    def _count(self, event: Event) -> None:
        match event:
            case RoundDone() if event.round > self.rounds_done:
                self.rounds_done = event.round
                self.counts["attempts"] += event.attempts
                self._tell(f"round {event.round}: {len(event.roster)} members")
            case Departed():
                self.departures.setdefault((event.peer, event.kind), event)
            case Recovered():
                self.counts["recoveries"] += 1
                self.counts["fallbacks"] += event.is_fallback
            case Halted():
                self.counts["halts"] += 1

    def _note_comeback(self, outcome: PeerOutcome) -> None:
        """An honest peer is out of the run, and comes as a stranger."""
        index = outcome.index
        self.trace.note(index, f"comes back after {type(outcome.error).__name__}: {outcome.error}")
        for checker in self.checkers:
            checker.ended(index, outcome.error)
        if outcome.rounds:
            self._audit_one(index)
        for checker in self.checkers:
            checker.came_back(index)
        self._admissions.arrive(index, self.rounds_done)
        self.counts["comebacks"] += 1

    def _note_end(self, outcome: PeerOutcome) -> None:
        self.trace.note(outcome.index, f"end {type(outcome.error).__name__}: {outcome.error}")
        is_ours = outcome.index in self.scenario.honest
        if is_ours and outcome.restarts and outcome.error is None and outcome.restarts == outcome.crashes:
            self.counts["returned"] += 1
        if is_ours or not isinstance(outcome.error, BtardError | None):
            if not (outcome.crashes > outcome.restarts):
                for checker in self.checkers:
                    checker.ended(outcome.index, outcome.error)
            self._running.discard(outcome.index)
        if self.violations:
            self.swarm.stop()

    def audit(self) -> None:
        """Compare every honest peer's ledger with what it told."""
        for index in self.scenario.honest:
            if index < self.scenario.peers or self.swarm.outcomes[index].rounds:
                self._audit_one(index)

    def _audit_one(self, index: int) -> None:
        directory, owner = self.swarm.data_dir(index), self.swarm.identities[index].peer_id
        audit = audit_ledger(directory)
        with Ledger.create(directory, self.swarm.config, owner) as ledger:
            bans = [(d.peer, d.round) for d in ledger.departures() if d.kind is DepartureKind.BAN]
        self._nothing_lost.audit(index, audit.problems, bans)

    def report(self, virtual_s: float, wall_s: float, audit_s: float) -> Report:
        """Return what came of it."""
        counts = {**self.counts, "deliveries": self.trace.deliveries}
        return Report(
            self.scenario,
            self.rounds_done,
            self.trace.digest,
            tuple(self.departures.values()),
            self.violations,
            counts,
            self.find_acts(),
            self.index,
            self._admissions.ways,
            virtual_s,
            wall_s,
            audit_s,
        )


def make_config(scenario: Scenario) -> Mapping[str, object]:
    """Return what a scenario fixes of its run's configuration."""
    entrance = {**asdict(scenario.entrance), **CHEAP} if scenario.entrance else {}
    radii = RADII[scenario.task]
    return {"genesis_size": scenario.peers, "rounds": scenario.rounds, "delay_s": DELAY_S, **radii, **entrance}


def find_patience(config: RunConfig, gradient_ms: int) -> float:
    """Return after how long without a finished round a swarm stands still that was promised no slower gradient.

    A round that adversaries run again and again lasts for many deadlines, and these are longer where gradients are.
    """
    usual, slow = (Deadlines.of(config, milliseconds).bulk for milliseconds in (PROMISED_MS, gradient_ms))
    return PATIENCE_S * max(1.0, slow / usual)


def find_comebacks(scenario: Scenario) -> Mapping[int, float]:
    """Return who comes back once as a stranger, and how many seconds after its end."""
    removed = {} if scenario.comeback_s is None else dict.fromkeys(scenario.honest, scenario.comeback_s)
    return {**removed, **{absence.peer: absence.back_s for absence in scenario.absences}}


def find_clocks(scenario: Scenario) -> dict[int, SkewedClock]:
    """Return the clocks of a scenario: besides running fast or slow, each began at another time."""
    return {index: SkewedClock(1 + drift, 100 * index) for index, drift in (scenario.clocks or {}).items()}


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for garbage seldom: what a simulation allocates per message is freed by counting references.

    What it keeps to the end would be looked through each time: some 10,000 objects a round, most of them messages.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(RARELY, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def play(
    scenario: Scenario,
    directory: Path,
    *,
    trace_file: TextIO | None = None,
    tell: Callable[[str], None] = ignore,
) -> Report:
    """Play a scenario in ``directory``, an empty one, and return what came of it; ``tell`` hears of every round."""
    started = time.perf_counter()
    stage = Play(scenario, directory, trace_file, tell)
    with stage.memory.installed(), rare_collections():
        crashing = stage.power.connected() if scenario.crashes else nullcontext()
        freezing = stage.faults.freezer.connected() if scenario.freezes else nullcontext()
        with ledgers_in_memory(), crashing, freezing, skewed(find_clocks(scenario)):
            virtual_s = run_deterministically(stage.run, scenario.seed)
        played = time.perf_counter()
        stage.audit()
        ended = time.perf_counter()
        return stage.report(virtual_s, ended - started, ended - played)


def play_in_memory(scenario: Scenario, trace_path: Path | None = None, tell: Callable[[str], None] = ignore) -> Report:
    """Play a scenario on one core, its files in memory if the machine has a file system there."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        file = stack.enter_context(trace_path.open("w", encoding="utf-8")) if trace_path else None
        place = MEMORY if os.access(MEMORY, os.W_OK) else None
        directory = stack.enter_context(TemporaryDirectory(prefix="btard-simulation-", dir=place))
        return play(scenario, Path(directory), trace_file=file, tell=tell)
