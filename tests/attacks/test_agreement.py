"""Attacks on agreement itself: whatever a minority shows, votes and times, all honest members decide the same."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import EquivocateInHalves
from btard.rules.evidence import Cause
from btard.rules.messages import Phase

RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT)


@pytest.mark.parametrize("seed", range(2))
async def test_ballots_that_nobody_equals_stop_no_decision(autojump_clock, tmp_path, seed):
    """A5: without a certificate Dolev-Strong decides; the silent member is removed all the same."""
    attackers = {1: "lie-in-ballot", 3: "withhold-reveal", 5: "lie-in-ballot+lie-in-view"}
    scenario = await run_scenario(tmp_path, attackers, seed=seed, delivery=lambda *message: 0.02)
    scenario.require_sound()
    scenario.require_removed(3, Cause.SILENCE)
    assert scenario.attacker(1).acted_in_round is not None


@pytest.mark.parametrize("phase", RECOVERY, ids=lambda phase: phase.name)
@pytest.mark.parametrize("seed", range(2))
async def test_any_halves_in_any_step_of_a_recovery(autojump_clock, tmp_path, phase, seed):
    """Two who tell the same halves different things in a recovery neither split it nor keep it from ending."""
    attack = frozenset({phase})
    attackers = {
        **dict.fromkeys((1, 5), lambda *_: EquivocateInHalves(2, seed, phases=attack)),
        3: "withhold-reveal",
    }
    scenario = await run_scenario(tmp_path, attackers, seed=seed, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert scenario.departure(3).cause is Cause.SILENCE


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_halves_are_told_different_things_by_three(autojump_clock, tmp_path, seed):
    """A drawn phase of the round, and every step of the recovery after it: all three are banned."""
    attackers = dict.fromkeys((1, 3, 5), "equivocate-in-halves")
    scenario = await run_scenario(tmp_path, attackers, seed=seed, delivery=lambda *message: 0.02)
    scenario.require_sound()
    for index in attackers:
        assert scenario.departure(index).cause is Cause.EQUIVOCATION


@pytest.mark.parametrize("seed", range(4))
async def test_messages_in_the_last_moment_cost_no_honest_member_its_place(autojump_clock, tmp_path, seed):
    """A6: half of the others get everything just before their deadlines, and find that the rest is a phase ahead."""
    attackers = dict.fromkeys((1, 3, 5), "late")
    scenario = await run_scenario(tmp_path, attackers, rounds=4, seed=seed, delivery=lambda *message: 0.1)
    scenario.require_sound()
    assert all(scenario.attacker(index).acted_in_round is not None for index in attackers)
