"""Untrue words, told to everyone alike: they are found false, or they make no difference."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import LieInView
from btard.rules.evidence import Cause

VIEWS = {
    "all": lambda swarm, index: LieInView(2, 0, swarm.identities[index].peer_id, lie="all"),
    "nothing": lambda swarm, index: LieInView(2, 0, swarm.identities[index].peer_id, lie="nothing"),
    "other": lambda swarm, index: LieInView(2, 0, swarm.identities[index].peer_id, lie="other"),
    "position": "lie-about-position",
}


@pytest.mark.parametrize("lie", VIEWS)
async def test_lying_views_save_and_cost_nobody(autojump_clock, tmp_path, lie):
    """Up to f views that claim what nobody sent, or nobody's, neither keep a silent member nor remove another."""
    scenario = await run_scenario(tmp_path, {1: VIEWS[lie], 3: "withhold-reveal", 5: VIEWS[lie]})
    scenario.require_sound()
    scenario.require_removed(3, Cause.SILENCE)
    assert scenario.attacker(1).acted_in_round is not None


@pytest.mark.parametrize("withheld", ["withhold", "withhold-part+deaf"])
async def test_attesters_cannot_save_a_withholder(autojump_clock, tmp_path, withheld):
    """Two who attest to what nobody holds are no majority: the withholder is removed."""
    scenario = await run_scenario(tmp_path, {1: withheld, 3: "attest-all", 5: "attest-all"})
    scenario.require_sound()
    scenario.require_removed(1, Cause.WITHHOLDING)
    scenario.require_stays(3, 5)


@pytest.mark.parametrize("complaint", ["complain-at-scatter", "complain-at-gather", "complain-in-check"])
async def test_denied_attestations_cost_no_honest_member_its_place(autojump_clock, tmp_path, complaint):
    """One who complains about everybody and two who deny that they hold anything do not make a majority."""
    scenario = await run_scenario(tmp_path, {1: complaint, 3: "attest-nothing", 5: "attest-nothing"}, rounds=8)
    scenario.require_sound()
    assert all(scenario.attacker(index).acted_in_round is not None for index in (1, 3, 5))


FOUND = {
    "wrong-aggregate": Cause.WRONG_AGGREGATE,
    "lying-projection": Cause.FALSE_REPORT,
    "false-naming": Cause.FALSE_NAMING,
}


@pytest.mark.parametrize("kind", FOUND)
async def test_votes_against_the_evidence_save_no_cheat(autojump_clock, tmp_path, kind):
    """Three of seven vote for each other and against the evidence; the count goes with the evidence."""
    scenario = await run_scenario(tmp_path, {1: f"{kind}+vote-against", 3: "vote-against", 5: "vote-against"})
    scenario.require_sound()
    scenario.require_banned(1, FOUND[kind])
    scenario.require_stays(3, 5)


async def test_votes_against_the_evidence_convict_no_innocent(autojump_clock, tmp_path):
    """A false accuser with two voters behind it loses its own place, not that of its target."""
    attackers = {1: "false-accusation+vote-against", 3: "vote-against", 5: "vote-against"}
    scenario = await run_scenario(tmp_path, attackers, rounds=40)
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_ACCUSATION)
