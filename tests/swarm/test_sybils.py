"""A crowd of strangers that skip the gradient work, as many as the members and more, from one machine."""

from pathlib import Path

import pytest
from tests.swarm.joining_scenes import Idle

from btard.rules.admission import compute_skipping_odds
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause, DepartureKind
from btard.sim import SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.sim.joining import CHEAP
from btard.sim.tasks import StubTask
from btard.swarm.events import Departed

MEMBERS, SYBILS, COMES_S = 4, 12, 8.0
SETTINGS = {"tau": 5.0, "delta": 50.0, "rounds": 60, "probation": 8, "check_rate": 1.0, "state_interval": 8, **CHEAP}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_sybil_that_skips_its_work_becomes_a_member(tmp_path: Path, seed: int) -> None:
    """Some are admitted and banned one after another; the roster is what it was, and no member is blamed."""
    sybils = range(MEMBERS, MEMBERS + SYBILS)
    swarm = SimulatedSwarm(
        {"genesis_size": MEMBERS, **SETTINGS},
        StubTask,
        tmp_path,
        seed=seed,
        joins=dict.fromkeys(sybils, COMES_S),
        conducts={index: Idle() for index in sybils},
        delivery=lambda _sender, _receiver, _message: 0.25,
    )
    outcome = run_deterministically(swarm.run, seed)
    members = {identity.peer_id for identity in swarm.identities[:MEMBERS]}
    banned = outcome.departures(DepartureKind.BAN)
    assert len(banned) >= 2
    assert banned.keys() <= set(sybils)
    for peer in outcome.honest:
        assert [event.round for event in peer.rounds] == list(range(1, 61))
        assert all(set(event.roster) == members for event in peer.rounds)
        assert {event.cause for event in peer.events if isinstance(event, Departed)} == {Cause.FALSE_GRADIENT}
    assert len(outcome.state_roots) == 1


@pytest.mark.parametrize("members", [4, 8, 16, 64])
def test_odds_of_skipping_at_the_defaults_are_below_one_in_ten_thousand(members: int) -> None:
    """With as many Byzantine checkers as a roster bears, on average, the rest finds the cheat in time."""
    config = RunConfig()
    tolerated = (members - 1) // 2
    assert compute_skipping_odds(config.check_rate, config.probation, members, tolerated) < 1e-4
