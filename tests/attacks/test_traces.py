"""Traces of reviewed attacks that no other file tells as a scenario."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import LyingProjection
from btard.rules.disputes import DisputeKind
from btard.rules.evidence import Cause
from btard.swarm.events import DisputeOpened


def count_columns(scenario):
    """Return how many columns the first honest peer saw opened."""
    events = scenario.outcome.honest[0].events
    return sum(isinstance(event, DisputeOpened) and event.kind is DisputeKind.COLUMN for event in events)


async def test_lies_on_all_parts_open_no_column(autojump_clock, tmp_path):
    """B3: who lies about every part makes every sum wrong, and is named; no aggregator is suspected for it."""
    attack = LyingProjection(2, 0, on_all_parts=True)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack})
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_REPORT)
    assert count_columns(scenario) == 0


@pytest.mark.parametrize("size", [7, 8])
async def test_loud_gradients_open_few_columns_and_draw_attention(autojump_clock, tmp_path, size):
    """B4: gradients so large that Verification 2 fires without a liar open few columns, and their authors leave."""
    attackers = dict.fromkeys((1, 3, 5), "sign-flip")
    scenario = await run_scenario(tmp_path, attackers, size=size, rounds=30)
    scenario.require_sound()
    for index in attackers:
        scenario.require_banned(index, Cause.FALSE_GRADIENT, within=30)
    assert count_columns(scenario) <= 4


async def test_another_state_removes_its_owner_alone(autojump_clock, tmp_path):
    """B6: a digest of x that differs from that of more than half stops nothing; its owner leaves without blame."""
    scenario = await run_scenario(tmp_path, {1: "other-state", 3: "other-state", 5: "other-state"})
    scenario.require_sound()
    for index in (1, 3, 5):
        scenario.require_removed(index, Cause.OTHER_STATE)


async def test_seals_need_only_a_majority(autojump_clock, tmp_path):
    """C10: members that sign no seal, or a false one, keep nobody from sealing."""
    scenario = await run_scenario(tmp_path, dict.fromkeys((1, 3, 5), "bad-seal"))
    scenario.require_sound()
    scenario.require_stays(1, 3, 5)


@pytest.mark.parametrize("seed", range(2))
async def test_broken_promises_are_banned(autojump_clock, tmp_path, seed):
    """Another nonce than the promised one is evidence against its author in either draw, which is made anew."""
    scenario = await run_scenario(tmp_path, {1: "break-promise"}, seed=seed)
    scenario.require_sound()
    scenario.require_banned(1, Cause.BROKEN_REVEAL)


@pytest.mark.parametrize("kind", ["collude", "collude-with-norms"])
async def test_coverers_who_hide_their_distance_are_found(autojump_clock, tmp_path, kind):
    """Forged norms beside forged projections hide a wrong aggregate no longer than projections alone."""
    scenario = await run_scenario(tmp_path, dict.fromkeys((1, 2, 3), kind), size=8, rounds=24)
    scenario.require_sound()
    for index in (1, 2, 3):
        assert scenario.departure(index).cause in {Cause.FALSE_REPORT, Cause.WRONG_AGGREGATE}
