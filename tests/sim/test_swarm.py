"""Whole swarms of honest peers on the virtual clock: they agree, survive a crash, and part without blame."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from btard.rules.evidence import Cause, DepartureKind
from btard.sim import LinearTask, Outcome, SimulatedSwarm, run_swarm
from btard.swarm.audit import audit_ledger
from btard.swarm.events import Event, RoundDone

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 6}


def audit_all(outcome: Outcome, directory: Path) -> Sequence[str]:
    """Return what is wrong with any peer's ledger."""
    return [problem for peer in outcome.peers for problem in audit_ledger(directory / f"peer-{peer.index}").problems]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
async def test_honest_peers_finish_with_one_state_and_clean_ledgers(
    size: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A swarm of any size trains, seals every round, and ends with one state."""
    outcome = await run_swarm({**SETTINGS, "genesis_size": size}, LinearTask, tmp_path)
    assert [peer.error for peer in outcome.peers] == [None] * size
    assert len(outcome.state_roots) == 1
    assert not outcome.departures(DepartureKind.BAN)
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert audit_all(outcome, tmp_path) == []


async def test_nobody_waits_for_what_is_there(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Where messages take no time rounds take none: whatever completes a stage wakes all who wait for it."""
    outcome = await run_swarm({**SETTINGS, "genesis_size": 5, "rounds": 20}, LinearTask, tmp_path)
    assert len(outcome.honest[0].rounds) == 20
    assert outcome.virtual_s < 20  # one deadline alone is 4


async def test_training_approaches_the_solution(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The aggregate is a useful gradient: the distance to the solution shrinks."""
    outcome = await run_swarm({**SETTINGS, "genesis_size": 4, "rounds": 30}, LinearTask, tmp_path)
    state = outcome.honest[0].state
    assert state is not None
    task = LinearTask()
    assert task.loss(state.parameters) < 0.4 * task.loss(task.initial_parameters())


async def test_a_crashed_peer_is_removed_and_nobody_recomputes_a_gradient(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The others finish the round under the same commitments, and the dead peer's part is taken over."""
    calls: list[bytes] = []

    class CountingTask(LinearTask):
        def gradient(self, parameters, seed):  # type: ignore[no-untyped-def]
            calls.append(seed)
            return super().gradient(parameters, seed)

    def crash_after_round_3(index: int, event: Event) -> None:
        if index == 2 and isinstance(event, RoundDone) and event.round == 3:
            swarm.crash(2)

    config = {**SETTINGS, "genesis_size": 5, "validators": 0}
    swarm = SimulatedSwarm(config, CountingTask, tmp_path, watch=crash_after_round_3)
    outcome = await swarm.run()
    departed = outcome.departures(DepartureKind.REMOVAL)
    assert {index: event.cause for index, event in departed.items()} == {2: Cause.SILENCE}
    assert [len(peer.rounds) for peer in outcome.peers] == [6, 6, 3, 6, 6]
    assert len(outcome.state_roots) == 1
    assert len(calls) == len(set(calls)) <= 5 * 3 + 4 * 3 + 1
    assert audit_all(outcome, tmp_path) == []


async def test_a_goodbye_bears_no_blame(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A member that leaves after round 3 stays for the round of its goodbye, ends well, and the others go on."""
    swarm = SimulatedSwarm({**SETTINGS, "genesis_size": 4}, LinearTask, tmp_path, leave_after={1: 3})
    outcome = await swarm.run()
    assert [len(peer.rounds) for peer in outcome.peers] == [6, 4, 6, 6]
    assert [peer.error for peer in outcome.peers] == [None] * 4
    assert set(outcome.departures(DepartureKind.GOODBYE)) == {1}
    assert audit_all(outcome, tmp_path) == []


async def test_plain_averaging_trains_too(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The comparison without any defence is a working all-reduce."""
    outcome = await run_swarm({**SETTINGS, "genesis_size": 4, "defence": "none"}, LinearTask, tmp_path)
    assert [len(peer.rounds) for peer in outcome.peers] == [6] * 4
    assert len(outcome.state_roots) == 1


async def test_fewer_members_than_min_roster_wait_and_stop_with_a_reason(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swarm that would shrink below min_roster waits, and says why when it has waited for too long."""
    monkeypatch.setattr("btard.swarm.recovery.PATIENCE_S", 100.0)

    def crash_after_round_1(index: int, event: Event) -> None:
        if index == 2 and isinstance(event, RoundDone) and event.round == 1:
            swarm.crash(2)

    config = {**SETTINGS, "genesis_size": 3, "min_roster": 3}
    swarm = SimulatedSwarm(config, LinearTask, tmp_path, watch=crash_after_round_1)
    outcome = await swarm.run()
    assert "min_roster" in str(outcome.peers[0].error)
