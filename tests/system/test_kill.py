"""Real processes over TCP and the DHT: `kill -9` costs the others a removal, and no ledger its truth."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.swarm_processes import Process, find_free_port, start_swarm, stop_all, wait_until

from btard.swarm.audit import audit_ledger

ROUNDS = 12


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[list[Process]]:
    """Four peers that end with the test."""
    processes = start_swarm(tmp_path, 4, ROUNDS, find_free_port(), ["delay_s=0.5"])
    yield processes
    stop_all(processes)


@pytest.mark.timeout(240)
def test_a_killed_peer_is_removed_and_every_ledger_audits_clean(swarm: list[Process]) -> None:
    """The others finish the round and the run with one state; the dead peer's ledger is whole as well."""
    victim, others = swarm[2], [swarm[0], swarm[1], swarm[3]]
    wait_until(lambda: len(victim.events("round")) >= 3, "three rounds")
    victim.kill()
    wait_until(lambda: all(process.events("finished") for process in others), "the others to finish")
    victim_id = victim.events("ready")[0]["peer"]
    for process in others:
        assert process.popen.wait(timeout=30) == 0
        departed = [(event["peer"], event["kind"], event["cause"]) for event in process.events("departed")]
        assert departed == [(victim_id, "removal", "silence")]
        assert [event["round"] for event in process.events("round")] == list(range(1, ROUNDS + 1))
    assert len({process.events("finished")[0]["state"] for process in others}) == 1
    for process in swarm:
        result = audit_ledger(process.directory)
        assert result.problems == ()
        assert result.seals >= 3
