"""The faults that a scenario may have: what they do, and what they leave alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from btard.errors import ConfigError
from btard.identity import Identity
from btard.net import Message
from btard.rules.evidence import Cause, DepartureKind
from btard.sim.clocks import SkewedClock, skewed, true_time
from btard.sim.drawing import Order, parse_faults
from btard.sim.network import NetworkModel
from btard.sim.play import play
from btard.sim.power import RUNNING
from btard.sim.scenario import BREAKS_SYNCHRONY, DELAY_S, Crash, Fault, Moment, Scenario, Weather
from btard.swarm.frames import Kind

PEERS = tuple(Identity(bytes([number]) * 32).peer_id for number in range(4))
MESSAGE = Message(Kind.MESSAGE, b"head")
STORM = Weather(latency_s=0.25, jitter_s=0.15, loss=0.5, reorder=0.5, duplicate=0.2, bandwidth=1e4)
CALM = Scenario(1, 4, 6, "stub", {}, 1, ())


def make_model(scenario: Scenario) -> NetworkModel:
    """Return the network of a scenario for four peers."""
    return NetworkModel(scenario, {peer: index for index, peer in enumerate(PEERS)}, 1_000_000)


async def test_the_worst_weather_keeps_synchrony(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever the network does, between two honest peers a control message takes less than Δ; a cheat's may not."""
    model = make_model(replace(CALM, weather=STORM, adversaries={3: "late"}))
    delays = [model.find_delay(PEERS[0], PEERS[1], MESSAGE) for _ in range(500)]
    latest = [max(delay) if isinstance(delay, tuple) else delay for delay in delays]
    assert 0.5 < max(latest) < DELAY_S
    assert any(isinstance(delay, tuple) for delay in delays)
    others = [model.find_delay(PEERS[3], PEERS[1], MESSAGE) for _ in range(500)]
    assert max(max(delay) if isinstance(delay, tuple) else delay for delay in others) > DELAY_S


async def test_disturbances_pass(autojump_clock: trio.testing.MockClock) -> None:
    """Messages wait for the end of a stall and of a partition that separates them, and nobody else's do."""
    model = make_model(CALM)
    model.disturbances.stalled[0] = 0.25
    model.disturbances.cut[frozenset({1, 2})] = 5.0
    model.disturbances.far[3] = 2.0, 3.0
    assert model.find_delay(PEERS[0], PEERS[3], MESSAGE) == 3.25
    assert model.find_delay(PEERS[1], PEERS[2], MESSAGE) == 0.0
    assert model.find_delay(PEERS[1], PEERS[0], MESSAGE) == 5.25
    await trio.sleep(6)
    assert model.find_delay(PEERS[1], PEERS[3], MESSAGE) == 0.0


async def test_each_peer_has_its_own_clock(autojump_clock: trio.testing.MockClock) -> None:
    """A clock that runs at double speed lets its peer wait for half as long, by whatever function it waits."""
    with skewed({7: SkewedClock(2.0, 100.0)}):
        for index, lasts in ((7, 1.0), (8, 2.0)):
            RUNNING.set(index)
            begun = true_time()
            await trio.sleep(2)
            await trio.sleep_until(trio.current_time() + 2)
            with trio.move_on_after(2):
                await trio.sleep_forever()
            with trio.move_on_at(trio.current_time() + 2):
                await trio.sleep_forever()
            with pytest.raises(trio.TooSlowError), trio.fail_after(2):
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.relative_deadline = 2
                assert nursery.cancel_scope.relative_deadline == pytest.approx(2)
                await trio.sleep_forever()
            assert true_time() - begun == pytest.approx(6 * lasts)
    assert trio.current_time() == true_time()


@pytest.mark.parametrize("moment", list(Moment))
def test_a_crash_costs_its_peer_the_place_and_nobody_else(moment: Moment, tmp_path: Path) -> None:
    """At whatever moment a peer dies, the others remove it without blame and finish the run."""
    scenario = replace(CALM, crashes=(Crash(2, 2, moment, 3),))
    report = play(scenario, tmp_path)
    assert (report.violations, report.rounds_done, report.counts["crashes"]) == ((), 6, 1)
    left = report.find_leavers(DepartureKind.REMOVAL)
    assert {index: item.cause for index, item in left.items()} == {2: Cause.SILENCE}


@pytest.mark.parametrize("moment", list(Moment))
def test_a_restarted_peer_finishes_with_the_others(moment: Moment, tmp_path: Path) -> None:
    """Who comes back on its old data directory before a deadline keeps its place and signs no slot twice."""
    scenario = replace(CALM, crashes=(Crash(2, 2, moment, 3, 0.1),))
    report = play(scenario, tmp_path)
    assert (report.violations, report.rounds_done, report.departures) == ((), 6, ())
    assert (report.counts["crashes"], report.counts["restarts"], report.counts["returned"]) == (1, 1, 1)


def test_a_scenario_is_a_value() -> None:
    """Equal seeds draw equal scenarios, different ones differ, and all can be told as JSON and to people."""
    drawn = [Order().draw(seed) for seed in range(40)]
    assert drawn == [Order().draw(seed) for seed in range(40)]
    assert len({json.dumps(scenario.as_json()) for scenario in drawn}) == 40
    assert {fault for scenario in drawn for fault in scenario.faults} == set(Fault)
    assert all(scenario.describe() for scenario in drawn)


def test_an_order_tells_its_command() -> None:
    """The command that repeats a run has the seed and all that was given, and nothing that was drawn."""
    assert Order(peers=5, attack="sign-flip").command(7) == (
        "btard-peer simulate --seed 7 --peers 5 --rounds 50 --faults all --attack sign-flip"
    )


def test_scenarios_keep_within_the_threat_model() -> None:
    """Fewer than half are Byzantine, and crashes leave more than half of all honest and alive, but for a moment."""
    for seed in range(100):
        scenario = Order().draw(seed)
        members = range(scenario.peers)
        honest = [index for index in members if index not in scenario.adversaries]
        back = [item for item in scenario.crashes if item.restart_s is None or Fault.BLACKOUT not in scenario.faults]
        gone = {item.peer for item in (*back, *scenario.absences)} & set(members)
        assert 2 * len(honest) > scenario.peers
        assert 2 * (len(honest) - len(gone)) > scenario.peers
        assert scenario.is_synchronous or BREAKS_SYNCHRONY & set(scenario.faults)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Order(peers=4, byzantine=2), "at most 1"),
        (Order(faults="weather"), "unknown fault"),
        (Order(peers=4, byzantine=1, attack="rudeness"), "unknown attack"),
        (Order(task="chess"), "unknown task"),
    ],
)
def test_impossible_orders_are_refused(order: Order, words: str) -> None:
    """What cannot be simulated is one line that says why."""
    with pytest.raises(ConfigError, match=words):
        order.draw(1)


def test_faults_by_name() -> None:
    """The names of faults are all, none, or a list; their order does not matter."""
    assert parse_faults("all") is None
    assert parse_faults("none") == ()
    assert parse_faults("skew,loss") == parse_faults("loss, skew") == (Fault.LOSS, Fault.SKEW)
