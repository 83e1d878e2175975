"""A member that dies while its swarm settles that an attempt is over."""

from typing import Any

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks.accusing import FalseNaming
from btard.rules.evidence import Cause
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.sim.power import PowerLoss
from btard.sim.swarm import SimulatedSwarm
from btard.swarm.broadcast import Broadcast

VICTIM = 3


@pytest.mark.parametrize("phase", [Phase.AGREE, Phase.VIEW])
@pytest.mark.parametrize("down_s", [0.5, 1.5])
async def test_a_member_that_dies_in_agree_comes_back_to_its_place(
    phase: Phase, down_s: float, autojump_clock, tmp_path, monkeypatch
):
    """Whether it had said AGREE or shown its view: the others cannot be past it, and it goes on with them."""
    swarms, say = list[SimulatedSwarm](), Broadcast.say

    def make(swarm: SimulatedSwarm, index: int) -> FalseNaming:
        swarms.append(swarm)
        return FalseNaming(2, 0, swarm.identities[index].peer_id)

    def say_and_die(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
        is_new = broadcast.find_said(stage) is None
        message = say(broadcast, stage, *args)
        is_victim = swarms and broadcast.me == swarms[0].identities[VICTIM].peer_id
        if is_victim and is_new and stage.phase is phase and stage.attempt == 0 and stage.serial == 0:
            died.append(stage)
            swarms[0].crash(VICTIM, down_s)
            raise PowerLoss
        return message

    died = list[Stage]()
    monkeypatch.setattr(Broadcast, "say", say_and_die)
    scenario = await run_scenario(tmp_path, {1: make}, size=5, rounds=4, options={"validators": 0})
    scenario.require_sound()
    assert len(died) == 1
    assert scenario.departure(1).cause is Cause.FALSE_NAMING
