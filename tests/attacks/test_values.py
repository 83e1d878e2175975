"""NaN, infinities, denormals and the largest numbers, under signed roots and in reports: found, or without effect."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import POISONS, PoisonAggregate, PoisonGradient, PoisonReports
from btard.attacks.values import STRANGE_NUMBERS
from btard.rules.checks import MAX_REPORT
from btard.rules.evidence import Cause


@pytest.mark.parametrize("poison", POISONS)
async def test_poisoned_gradients_are_banned_and_poison_nothing(autojump_clock, tmp_path, poison):
    """Values that are not finite count as zeros, huge ones are clipped, and the validator finds either."""
    attack = PoisonGradient(2, 0, poison=poison)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, size=5, rounds=16)
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_GRADIENT, within=16)
    assert scenario.loss < 8


@pytest.mark.parametrize("poison", POISONS)
async def test_poisoned_aggregates_are_banned_at_once(autojump_clock, tmp_path, poison):
    """Whatever an aggregator commits to in place of the sum of the clipped, the projections show."""
    attack = PoisonAggregate(2, 0, poison=poison)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, rounds=4)
    scenario.require_sound()
    scenario.require_banned(1, Cause.WRONG_AGGREGATE)


@pytest.mark.parametrize("number", STRANGE_NUMBERS, ids=str)
async def test_strange_reports_cost_their_author_its_place(autojump_clock, tmp_path, number):
    """A report that is absurd or no number does not count, so its author is silent; any other is false."""
    attack = PoisonReports(2, 1, number=number)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, rounds=4)
    scenario.require_sound()
    if abs(number) <= MAX_REPORT:
        scenario.require_banned(1, Cause.FALSE_REPORT)
    else:
        scenario.require_removed(1, Cause.SILENCE)
