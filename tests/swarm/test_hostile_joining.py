"""Joining midway under attack: what comes of whoever misbehaves; honest strangers become members all the same."""

from pathlib import Path

from tests.swarm.joining_scenes import MEMBERS, STRANGER, build, find, play, require_sound

from btard.attacks import Equivocate
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase, Stage
from btard.sim import SimulatedSwarm
from btard.swarm.events import Departed, Promoted

QUICK = {"probation": 3, "rounds": 30}
COMES_S = 3.0


def is_last_of_probation(swarm: SimulatedSwarm) -> bool:
    """Whether somebody is promoted by the round in progress."""
    rounds = swarm.outcomes[0].rounds
    return bool(rounds) and any(item.worked == QUICK["probation"] - 1 for item in rounds[-1].result.seal.candidates)


class SplitAtEntry(Equivocate):
    """Says two things in the CONFIRM of the round by which a stranger becomes a member."""

    swarm: SimulatedSwarm

    def __init__(self) -> None:
        super().__init__(1, phase=Phase.CONFIRM)

    def splits(self, stage: Stage) -> bool:
        """Whether this is that phase."""
        return stage.phase is Phase.CONFIRM and is_last_of_probation(self.swarm)


def test_split_at_an_entry_harms_nobody_but_its_author(tmp_path: Path) -> None:
    """The round by which a stranger becomes a member is run again with all; the stranger begins after that."""
    attack = SplitAtEntry()
    swarm = attack.swarm = build(tmp_path, {STRANGER: COMES_S}, {1: attack}, **QUICK)
    outcome = play(swarm)
    promoted = find(outcome, STRANGER, Promoted)
    assert len(promoted) == 1
    assert outcome.departures(DepartureKind.BAN).keys() == {1}
    assert {item.cause for item in find(outcome, 0, Departed)} == {Cause.EQUIVOCATION}
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert outcome.peers[STRANGER].rounds[0].round == promoted[0].round
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS
    require_sound(swarm, outcome)
