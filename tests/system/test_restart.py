"""Real processes over TCP and the DHT: `kill -9` and the same command again, and the run goes on."""

from pathlib import Path

import pytest
from tests.system.swarm_processes import Process, find_free_port, start_swarm, stop_all, wait_until

from btard.swarm.audit import audit_ledger

ROUNDS = 12
SETTINGS = ["delay_s=4.0"]
"""Members are waited for 7Δ and more; starting a process takes about five seconds."""


def require_one_end(swarm: list[Process]) -> None:
    """All finish with one state, nobody left, every ledger audits clean."""
    wait_until(lambda: all(process.events("finished") for process in swarm), "everybody to finish")
    assert len({process.events("finished")[0]["state"] for process in swarm}) == 1
    for process in swarm:
        assert process.popen.wait(timeout=30) == 0
        assert process.events("departed") == []
        assert audit_ledger(process.directory).problems == ()


@pytest.mark.timeout(240)
def test_a_killed_peer_that_is_started_again_goes_on(tmp_path: Path) -> None:
    """The others wait for it, and it is back in the round in which it died."""
    swarm = start_swarm(tmp_path, 4, ROUNDS, find_free_port(), SETTINGS)
    try:
        wait_until(lambda: len(swarm[2].events("round")) >= 3, "three rounds")
        swarm[2].kill()
        swarm[2].popen.wait()
        swarm[2] = swarm[2].restart()
        wait_until(lambda: bool(swarm[2].events("resumed")), "the peer to resume")
        assert swarm[2].events("resumed")[0]["round"] >= 3
        require_one_end(swarm)
    finally:
        stop_all(swarm)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_all_peers_killed_at_once_and_started_again_go_on(tmp_path: Path) -> None:
    """A power cut costs a pause and nothing else; the founder comes back like everybody."""
    swarm = start_swarm(tmp_path, 4, ROUNDS, find_free_port(), SETTINGS)
    try:
        wait_until(lambda: len(swarm[2].events("round")) >= 3, "three rounds")
        for process in swarm:
            process.kill()
        for process in swarm:
            process.popen.wait()
        swarm[:] = [process.restart() for process in swarm]
        wait_until(lambda: all(process.events("resumed") for process in swarm), "all peers to resume")
        require_one_end(swarm)
    finally:
        stop_all(swarm)
