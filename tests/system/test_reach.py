"""Real processes over TCP and the DHT: one that announces nothing, one that has two addresses, and all train."""

from pathlib import Path

import pytest
from tests.system.swarm_processes import find_free_port, start_swarm, stop_all, wait_until

ROUNDS = 6
DIALS_OUT, TWICE = 1, 2
EXTRA = {DIALS_OUT: ["--announce", "none"], TWICE: ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]}


@pytest.mark.timeout(240)
def test_a_peer_that_announces_nothing_takes_part(tmp_path: Path) -> None:
    """It dials all the others: every round runs with all three, nobody leaves, all end with one state."""
    swarm = start_swarm(tmp_path, 3, ROUNDS, find_free_port(), extra=EXTRA)
    try:
        wait_until(lambda: all(process.events("finished") for process in swarm), "everybody to finish")
        announced = [process.events("ready")[0]["addresses"] for process in swarm]
        assert [len(addresses) for addresses in announced] == [1, 0, 2]
        assert announced[TWICE][1].startswith("[::1]:")
        for process in swarm:
            assert process.popen.wait(timeout=30) == 0
            assert process.events("departed") == []
            assert [event["round"] for event in process.events("round")] == list(range(1, ROUNDS + 1))
            assert {event["roster_size"] for event in process.events("round")} == {3}
        assert len({process.events("finished")[0]["state"] for process in swarm}) == 1
    finally:
        stop_all(swarm)
