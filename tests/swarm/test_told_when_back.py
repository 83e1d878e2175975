"""Whoever is started again in a round that the others have left waits for them, and asks where they are."""

from pathlib import Path

import pytest
from tests.swarm.restarts import kill_after, lag

from btard.errors import Removed
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.determinism import run_deterministically

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 20, "genesis_size": 5, "delay_s": 1.0, "validators": 0}
VICTIM, OTHER = 3, 1


@pytest.mark.parametrize("phase", [Phase.CHECK, Phase.CONFIRM])
@pytest.mark.parametrize(
    ("held_up_in", "back_s"), [(Phase.COMMIT, 12.0), (Phase.COMMIT, 14.0), (Phase.AGGREGATE, 16.0)]
)
def test_whoever_is_removed_and_back_before_a_seal_says_so_hears_of_it(
    tmp_path: Path, phase: Phase, held_up_in: Phase, back_s: float
) -> None:
    """The others wait for somebody else just then; of the attempt in which it died they serve nothing."""
    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path, delivery=lag)
    killed = kill_after(swarm, VICTIM, phase, 2, back_s)
    held_up = kill_after(swarm, OTHER, held_up_in, 2, 6.0, first_attempt=1)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert held_up
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {VICTIM}
    assert isinstance(outcome.peers[VICTIM].error, Removed)
    assert outcome.virtual_s < 60.0
    assert len(outcome.state_roots) == 1
