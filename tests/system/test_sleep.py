"""Real processes over TCP: one stands still as a laptop that sleeps, is told what became of it, and comes again."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.swarm_processes import Process, find_free_port, start_swarm, stop_all, wait_until

from btard.swarm.audit import audit_ledger

CHEAP = ["identity_bits=2", "ticket_bits=2", "ticket_memory_kib=8", "state_interval=4", "probation=2"]
REMOVED = 7


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[list[Process]]:
    """Four peers of a run that would take hours, which it costs little to join."""
    processes = start_swarm(tmp_path, 4, 10_000, find_free_port(), ["delay_s=0.5", *CHEAP])
    yield processes
    stop_all(processes)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_machine_that_slept_too_long_is_told_so_and_may_come_again(swarm: list[Process]) -> None:
    """The others remove it without blame; it ends with code 7, and by the same command it is a member again."""
    sleeper, others = swarm[2], [swarm[0], swarm[1], swarm[3]]
    wait_until(lambda: len(sleeper.events("round")) >= 2, "two rounds")
    sleeper_id = sleeper.events("ready")[0]["peer"]
    sleeper.popen.send_signal(signal.SIGSTOP)
    wait_until(lambda: all(process.events("departed") for process in others), "the others to go on")
    sleeper.popen.send_signal(signal.SIGCONT)
    assert sleeper.popen.wait(timeout=30) == REMOVED
    ended = sleeper.events("ended")[0]
    assert (ended["reason"], "without blame" in ended["message"]) == ("removed", True)
    swarm[2] = again = sleeper.restart()
    wait_until(lambda: bool(again.events("promoted")), "the sleeper to be a member again")
    back = again.events("promoted")[0]["round"]
    wait_until(lambda: any(event["round"] > back for event in again.events("round")), "a round with it")
    for process in others:
        departed = [(event["peer"], event["kind"], event["cause"]) for event in process.events("departed")]
        assert departed == [(sleeper_id, "removal", "silence")]
    stop_all(swarm)
    assert [audit_ledger(process.directory).problems for process in swarm] == [()] * len(swarm)
