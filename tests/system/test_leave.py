"""Real processes over TCP: one is told to leave while it runs, and the others go on without blaming it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.swarm_processes import PATIENCE_S, Process, find_free_port, start_swarm, stop_all, wait_until

from btard.swarm.audit import audit_ledger


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[list[Process]]:
    """Four peers of a run that would take hours."""
    processes = start_swarm(tmp_path, 4, 10_000, find_free_port())
    yield processes
    stop_all(processes)


def tell_to_leave(process: Process) -> "subprocess.CompletedProcess[str]":
    """Run btard-peer leave for a peer, to its end."""
    command = [sys.executable, "-m", "btard.cli", "leave", "--data-dir", str(process.directory)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.timeout(300)
def test_a_peer_that_is_told_to_leave_says_goodbye(swarm: list[Process]) -> None:
    """It ends with exit code 0 and a sound ledger; the others note a goodbye, no removal, and finish more rounds."""
    leaver, others = swarm[2], [swarm[0], swarm[1], swarm[3]]
    wait_until(lambda: len(leaver.events("round")) >= 2, "two rounds")
    told = tell_to_leave(leaver)
    assert (told.returncode, told.stderr) == (0, "")
    assert "left: peer" in told.stdout
    assert leaver.popen.wait(timeout=30) == 0
    last = leaver.events("finished")[0]["round"]
    wait_until(lambda: all(len(process.events("round")) >= last + 2 for process in others), "two more rounds")
    leaver_id = leaver.events("ready")[0]["peer"]
    for process in others:
        departed = [(event["peer"], event["kind"], event["cause"]) for event in process.events("departed")]
        assert departed == [(leaver_id, "goodbye", "goodbye")]
    assert audit_ledger(leaver.directory).problems == ()
    again = tell_to_leave(leaver)
    assert (again.returncode, "over: left" in again.stdout) == (0, True)
