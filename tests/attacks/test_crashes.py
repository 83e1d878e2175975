"""Peers that die: removed by agreement, and the round goes on under the same commitments."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase
from btard.sim import LinearTask
from btard.swarm.conduct import Conduct
from btard.swarm.events import RoundDone

ROUND = 3


class DiesIn(Conduct):
    """Tells ``told`` others its message of one phase, the rest nothing, and vanishes when the next is due."""

    def __init__(self, swarm, index, phase, told):
        self._swarm, self._index, self._phase, self._told = swarm, index, phase, told
        self._is_dying = False

    def says(self, stage):
        """Return True until it dies."""
        if self._is_dying:
            self._swarm.crash(self._index)
        return not self._is_dying

    def deliver(self, message, recipient, identity, run_id):
        """Return the message to the first few, nothing to others."""
        stage = message.slot.stage
        if (stage.round, stage.phase) != (ROUND, self._phase):
            return message.envelope
        self._is_dying, self._told = True, self._told - 1
        return message.envelope if self._told >= 0 else None


class CountedTask(LinearTask):
    """Remembers which gradients it computed."""

    def __init__(self):
        super().__init__()
        self.computed = []

    def gradient(self, parameters, seed):
        """Return the gradient, and note it."""
        self.computed.append(seed)
        return super().gradient(parameters, seed)


def make_counted(tasks):
    """Return a maker of tasks that keeps them all."""

    def make():
        tasks.append(CountedTask())
        return tasks[-1]

    return make


PHASES = [Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM]


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
@pytest.mark.parametrize("told", [0, 3, 6])
async def test_crash_in_every_phase(autojump_clock, tmp_path, phase, told):
    """Whoever dies while sending is removed as silent; the others finish, and recompute no gradient."""
    tasks = []
    scenario = await run_scenario(
        tmp_path, {4: lambda *swarm: DiesIn(*swarm, phase, told)}, rounds=5, make_workload=make_counted(tasks)
    )
    scenario.require_sound()
    departed = scenario.departure(4)
    assert (departed.kind, departed.cause) == (DepartureKind.REMOVAL, Cause.SILENCE)
    assert departed.round in {ROUND, ROUND + 1}
    for task in tasks:
        assert len(task.computed) == len(set(task.computed))


@pytest.mark.parametrize("size", [7, 8])
async def test_links_that_break_mid_round(autojump_clock, tmp_path, size):
    """As many as a swarm bears, killed in one instant between two rounds: removed together, within one recovery."""
    dying = [1, 3, 5]

    def kill(swarm, index, event):
        if index == 0 and isinstance(event, RoundDone) and event.round == ROUND:
            for victim in dying:
                swarm.crash(victim)

    scenario = await run_scenario(tmp_path, dict.fromkeys(dying, lambda *_: Conduct()), size=size, rounds=5, watch=kill)
    scenario.require_sound()
    assert {scenario.departure(victim).cause for victim in dying} == {Cause.SILENCE}


async def test_crash_beside_an_attack(autojump_clock, tmp_path):
    """One peer dies in the round in which another cheats: one removal, one ban."""
    scenario = await run_scenario(
        tmp_path, {4: lambda *swarm: DiesIn(*swarm, Phase.CHECK, 3), 1: "wrong-aggregate"}, first_round=ROUND
    )
    scenario.require_sound()
    scenario.require_banned(1, Cause.WRONG_AGGREGATE)
    assert scenario.departure(4).cause is Cause.SILENCE
