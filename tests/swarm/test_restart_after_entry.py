"""Whoever restarts while an entry is recent: in the round of the entry and in the one after it, in every phase."""

from pathlib import Path

import pytest
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, build, find, play, require_sound

from btard.rules.messages import Phase, Stage
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed

MEMBER = 2


class Dies(Conduct):
    """Honest, and killed once, where it says something in a phase so many rounds after the entry; it comes back."""

    def __init__(self, index: int, phase: Phase, after: int) -> None:
        self._index, self._phase, self._after = index, phase, after
        self.swarm: SimulatedSwarm | None = None

    def says(self, stage: Stage) -> bool:
        """Die there."""
        assert self.swarm is not None
        done = [event.result for peer in self.swarm.outcomes for event in peer.rounds[-2:]]
        entries = [state.round for state in done if state.newcomers]
        is_there = bool(entries) and stage.round == entries[0] + self._after and stage.phase is self._phase
        if is_there and not self.swarm.outcomes[self._index].crashes:
            self.swarm.crash(self._index, 0.2)
        return True


@pytest.mark.parametrize("phase", [Phase.COMMIT, Phase.AGGREGATE, Phase.CONFIRM])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("index", [MEMBER, STRANGER])
def test_restart_around_an_entry_costs_nobody_its_place(index: int, after: int, phase: Phase, tmp_path: Path) -> None:
    """A newcomer says no COMMIT in its first round: whoever comes back does not look for one."""
    conduct = Dies(index, phase, after)
    swarm = conduct.swarm = build(tmp_path, {STRANGER: COMES_S}, {index: conduct}, rounds=30)
    outcome = play(swarm)
    has_died = (index, phase, after) != (STRANGER, Phase.COMMIT, 0)  # it says none
    assert outcome.peers[index].restarts == has_died
    assert [peer.error for peer in outcome.peers] == [None] * (MEMBERS + 1)
    assert not find(outcome, 0, Departed)
    require_sound(swarm, outcome)
