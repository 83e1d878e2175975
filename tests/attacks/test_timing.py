"""Too late for some, gone in the middle, here and not here: no honest member pays for it."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import Composed, Crash, HaltAlways, Vanished
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase

PHASES = (Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM)


@pytest.mark.parametrize("phase", [Phase.VIEW, Phase.BALLOT], ids=lambda phase: phase.name)
@pytest.mark.parametrize("told", [0, 3, 6])
async def test_crash_in_the_midst_of_a_recovery(autojump_clock, tmp_path, phase, told):
    """Who vanishes with its view or ballot half sent is removed, and everyone else decides the same."""
    attack = Composed([HaltAlways(2, 0), Crash(2, phase=phase, told=told)])
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack})
    scenario.require_sound()
    scenario.require_removed(1, Cause.SILENCE)
    assert isinstance(scenario.outcome.peers[1].error, Vanished)


@pytest.mark.parametrize("phase", [Phase.VIEW, Phase.BALLOT], ids=lambda phase: phase.name)
async def test_three_crash_in_the_recovery_that_a_fourth_peer_needs(autojump_clock, tmp_path, phase):
    """A silent member is removed by a recovery in which two more vanish."""
    attackers = {3: "withhold-reveal", **dict.fromkeys((1, 5), lambda *_: Crash(2, phase=phase, told=2))}
    scenario = await run_scenario(tmp_path, attackers)
    scenario.require_sound()
    for index in attackers:
        assert scenario.departure(index).kind is DepartureKind.REMOVAL


@pytest.mark.parametrize("kind", ["flap", "flap+deaf", "flap+replay"])
async def test_flapping_links_blame_nobody_else(autojump_clock, tmp_path, kind):
    """Links that break in every phase are made anew, what was lost is asked for; the flapping peer may be removed."""
    scenario = await run_scenario(tmp_path, {1: kind, 4: "flap"}, rounds=8, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert scenario.attacker(1).acted_in_round == 2
    for index in (1, 4):
        assert all(departed.kind is DepartureKind.REMOVAL for departed in scenario.departures(index))
