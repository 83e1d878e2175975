"""Complaints and halts without need: bounded per run, paid for by their authors, free of charge for the innocent."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.rules.evidence import DepartureKind


def require_bounded(scenario, *indices):
    """Whoever complains about more than f others leaves without a ban; attempts stay below the pairs it could use."""
    for index in indices:
        assert scenario.attacker(index).acted_in_round == 2
        assert scenario.departure(index).kind is DepartureKind.REMOVAL
    tolerated = 3
    attempts = sum(done.attempts - 1 for done in scenario.outcome.honest[0].rounds)
    assert attempts <= len(indices) * (tolerated + 1)


@pytest.mark.parametrize("kind", ["complain-at-scatter", "complain-at-gather", "complain-in-check"])
@pytest.mark.parametrize("count", [1, 3])
async def test_whoever_complains_about_everyone_leaves(autojump_clock, tmp_path, kind, count):
    """More than f marked partners are no accident: the complainers go, and no honest member with them."""
    attackers = dict.fromkeys((1, 3, 5)[:count], kind)
    scenario = await run_scenario(tmp_path, attackers, rounds=8)
    scenario.require_sound()
    require_bounded(scenario, *attackers)


@pytest.mark.parametrize("kind", ["withhold-from-one", "withhold-part-from-one", "withhold-part"])
async def test_withholding_from_one_victim_harms_nobody(autojump_clock, tmp_path, kind):
    """At scatter the pair is marked and goes on through relays, at gather the victim asks others: both stay."""
    scenario = await run_scenario(tmp_path, {1: kind}, rounds=8)
    scenario.require_sound()
    scenario.require_stays(1)


async def test_three_withhold_from_the_same_victim(autojump_clock, tmp_path):
    """As many marked partners as there may be attackers do not cost an honest member its place."""
    scenario = await run_scenario(tmp_path, dict.fromkeys((1, 3, 5), "withhold-from-one"), rounds=8)
    scenario.require_sound()
    assert all(scenario.attacker(index).acted_in_round for index in (1, 3, 5))


async def test_withheld_from_all_and_served_to_nobody(autojump_clock, tmp_path):
    """An aggregate that its owner keeps altogether removes it, for nobody attests to hold it."""
    scenario = await run_scenario(tmp_path, {1: "withhold-part+deaf"})
    scenario.require_sound()
    assert scenario.departure(1).kind is DepartureKind.REMOVAL


@pytest.mark.parametrize("count", [1, 3])
async def test_a_halt_in_every_round_is_heard_a_bounded_number_of_times(autojump_clock, tmp_path, count):
    """Each HALT without need uses up a pair; after f+1 of them its author leaves or is no longer heard."""
    attackers = dict.fromkeys((1, 3, 5)[:count], "halt-always")
    scenario = await run_scenario(tmp_path, attackers, rounds=16)
    scenario.require_sound()
    recoveries = max(
        sum(type(event).__name__ == "Recovered" for event in peer.events) for peer in scenario.outcome.honest
    )
    assert 0 < recoveries <= count * 6
