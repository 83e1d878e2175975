"""What a dismissal costs: the members one vote, and the candidate its ticket."""

from pathlib import Path

import pytest
from tests.swarm.joining_scenes import COMES_S, MEMBERS, SETTINGS, STRANGER, find, play, require_sound, slowly

from btard.attacks import Composed, LyingSample, StaleTicket
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.events import Admitted, DisputeOpened


@pytest.fixture
def swarm(tmp_path: Path) -> SimulatedSwarm:
    """Six members, and another kind of machine that comes again, with the ticket that it had."""
    return SimulatedSwarm(
        {"genesis_size": MEMBERS, **SETTINGS},
        LinearTask,
        tmp_path,
        joins={STRANGER: COMES_S},
        comebacks={STRANGER: 0.5},
        conducts={STRANGER: Composed([LyingSample(1, 0.01), StaleTicket(1)])},
        delivery=slowly,
    )


@pytest.fixture
def outcome(swarm: SimulatedSwarm) -> Outcome:
    """What came of them."""
    return play(swarm)


def test_dismissal_costs_one_vote(swarm: SimulatedSwarm, outcome: Outcome) -> None:
    """It is charged in the next rounds as well, for what it said before; nobody votes again, and the ledgers hold."""
    assert len(find(outcome, 0, DisputeOpened)) == 1
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {STRANGER}
    require_sound(swarm, outcome)


def test_ticket_is_good_for_one_admission(outcome: Outcome) -> None:
    """Whoever was dismissed comes again with a new ticket or not at all."""
    assert outcome.peers[STRANGER].comebacks == 1
    assert len(find(outcome, STRANGER, Admitted)) == 1
