"""Gradients that take virtual time: who draws them, what they cost, and that nobody is blamed for them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

from btard.rules.config import RunConfig
from btard.sim.drawing import Order
from btard.sim.drawing_gradients import NEWCOMERS_SHARE, SLOWEST_S
from btard.sim.gradients import Machine, Pace, find_paces
from btard.sim.play import PATIENCE_S, Play, find_patience, play
from btard.sim.scenario import JITTER, Crash, Fault, Moment, Scenario
from btard.sim.tasks import StubTask
from btard.swarm.services import COMPUTE_FACTOR

CALM = Scenario(1, 4, 6, "stub", {}, 1, (Fault.COMPUTE,), gradients={0: 0.1, 1: 12.0, 2: 5.0, 3: 1.0})


def make_machine(gradient_s: float = 5.0) -> Machine:
    """Return a machine whose gradients take just so long."""
    return Machine(StubTask(), Pace(gradient_s, 5000, Random(1)))


def make_work(machine: Machine, gradients: int) -> Callable[[], int]:
    """Return work that computes so many gradients, and comes to their number."""
    start = machine.workload.initial_parameters()

    def compute() -> int:
        for number in range(gradients):
            machine.workload.gradient(start, bytes([number]) * 32)
        return gradients

    return compute


def is_about(seconds: float, gradients: int, gradient_s: float = 5.0) -> bool:
    """Whether so many gradients, one after another, may take so long."""
    return gradients * gradient_s <= seconds <= gradients * gradient_s * (1 + JITTER)


async def test_every_gradient_costs_and_nothing_else_does(autojump_clock: trio.testing.MockClock) -> None:
    """Work takes as long as the gradients in it, whatever it is called; work without any is free."""
    machine = make_machine()
    for gradients in (0, 1, 3):
        started = trio.current_time()
        assert await machine.compute.run(make_work(machine, gradients)) == gradients
        assert is_about(trio.current_time() - started, gradients)


async def test_a_thread_does_one_thing_after_another(autojump_clock: trio.testing.MockClock) -> None:
    """Free work waits for the gradient before it; what is worked out beside the rounds waits for neither."""
    machine, ends = make_machine(), dict[str, float]()

    async def run(name: str, compute: str, gradients: int) -> None:
        await getattr(machine, compute).run(make_work(machine, gradients))
        ends[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "gradient", "compute", 1)
        await trio.sleep(1)
        nursery.start_soon(run, "free", "compute", 0)
        nursery.start_soon(run, "aside", "aside", 0)
    assert ends["aside"] == 1
    assert ends["free"] == ends["gradient"]
    assert is_about(ends["gradient"], 1)


async def test_a_gradient_goes_on_unheard_until_its_machine_dies(autojump_clock: trio.testing.MockClock) -> None:
    """Who gives a gradient up has its thread back when that is done; a crash takes no time."""
    machine = make_machine()
    with trio.move_on_after(1):
        await machine.compute.run(make_work(machine, 1))
    assert is_about(trio.current_time(), 1)
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.compute.run, make_work(machine, 1))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
        machine.die()
    assert trio.current_time() == before + 1


def test_seeds_draw_who_is_slow() -> None:
    """In half of all scenarios each peer has a time, short for some and long for others; honest ones promise it."""
    drawn = [Order(rounds=20).draw(seed) for seed in range(200)]
    slow = [scenario for scenario in drawn if scenario.gradients]
    assert 70 < len(slow) < 130
    assert all((Fault.COMPUTE in scenario.faults) == bool(scenario.gradients) for scenario in drawn)
    times = [seconds for scenario in slow for seconds in (scenario.gradients or {}).values()]
    assert min(times) < 0.1
    assert 11 < max(times) <= SLOWEST_S
    for scenario in slow:
        paces = find_paces(scenario)
        assert set(paces) == set(range(scenario.population))
        assert all(1000 * paces[index].gradient_s <= paces[index].promised_ms for index in scenario.honest)
        assert max(pace.promised_ms for pace in paces.values()) <= 1000 * RunConfig.max_gradient_s
        assert "a gradient takes" in "\n".join(scenario.describe())
        assert scenario.as_json()["gradients"]["0"] == paces[0].gradient_s


def test_who_comes_midway_is_faster_than_some_member_that_stays() -> None:
    """Else it could be too slow for every round of its probation, and lapse by right."""
    for scenario in [Order(rounds=20, faults="strangers,compute,crash").draw(seed) for seed in range(40)]:
        times, leaving = scenario.gradients or {}, {absence.peer for absence in scenario.absences}
        gone = leaving | {crash.peer for crash in scenario.crashes}
        slowest = max(times[index] for index in scenario.honest if index < scenario.peers and index not in gone)
        newcomers = leaving | set(range(scenario.peers, scenario.population))
        assert all(times[index] <= NEWCOMERS_SHARE * slowest + 0.001 for index in newcomers)


def test_other_faults_are_drawn_as_without_slow_gradients() -> None:
    """A seed that draws them keeps everything else that it has."""
    every = ",".join(fault.value for fault in Fault)
    without = every.removesuffix(",compute")
    for seed in range(10):
        slow, quick = Order(faults=every).draw(seed), Order(faults=without).draw(seed)
        assert replace(slow, faults=quick.faults, gradients=None, promises=None) == quick


def test_a_run_with_slow_gradients_ends_well_and_repeats_itself(tmp_path: Path) -> None:
    """Every round takes as long as its slowest member, nobody is blamed for it, and the trace is the same each time."""
    reports = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        reports.append(play(CALM, tmp_path / name))
    first, second = reports
    assert (first.violations, first.rounds_done, first.departures) == ((), 6, ())
    assert first.trace_digest == second.trace_digest
    assert 6 * 12.0 < first.virtual_s < 8 * 12.0 * (1 + JITTER)


def test_whoever_is_started_again_has_its_gradient(tmp_path: Path) -> None:
    """It is on its disk with the COMMIT: no round waits for another one, and it keeps its place."""
    crash = Crash(2, 2, Moment.WRITTEN, 2, 0.2)
    (tmp_path / "calm").mkdir()
    (tmp_path / "crash").mkdir()
    calm = play(replace(CALM, gradients=dict.fromkeys(range(4), 3.0)), tmp_path / "calm")
    report = play(replace(CALM, gradients=dict.fromkeys(range(4), 3.0), crashes=(crash,)), tmp_path / "crash")
    assert (report.violations, report.rounds_done, report.departures) == ((), 6, ())
    assert report.counts["returned"] == 1
    assert report.virtual_s < calm.virtual_s + 2


def test_deadlines_and_patience_follow_from_the_slowest_promise(tmp_path: Path) -> None:
    """All wait ten times what is promised; a swarm stands still only after as many deadlines as before."""
    stage = Play(CALM, tmp_path, None, lambda line: None)
    assert [stage.swarm.find_promise(index) for index in range(4)] == [100, 12000, 5000, 1000]
    config = stage.swarm.config
    assert find_patience(config, 100) == PATIENCE_S
    assert find_patience(config, 12000) > 30 * COMPUTE_FACTOR * 12
    assert stage.checkers[0].truth.patience_s == find_patience(config, 12000)


@pytest.mark.parametrize("seed", [3, 5])
def test_cheats_that_promise_anything_stop_nothing(seed: int, tmp_path: Path) -> None:
    """Whatever cheats say of their gradients, and however long they take, all rounds are done as they should be."""
    scenario = Order(peers=7, byzantine=3, rounds=6, faults="latency,compute", task="linear").draw(seed)
    report = play(scenario, tmp_path)
    assert (report.violations, report.rounds_done) == ((), 6)
