"""One scenario per attacker: found by the protocol's own checks, with the right cause, and nobody else with it."""

import pytest
from tests.attacks.scenario import every_other, run_scenario

from btard.attacks import Withhold, draw_mixed
from btard.rules.evidence import Cause
from btard.sim import LinearTask

PROVABLE = [
    ("wrong-aggregate", Cause.WRONG_AGGREGATE),
    ("lying-projection", Cause.FALSE_REPORT),
    ("equivocate", Cause.EQUIVOCATION),
    ("false-naming", Cause.FALSE_NAMING),
]


async def test_honest_swarm_loses_nobody(autojump_clock, tmp_path):
    """Without attackers nobody leaves, nothing is disputed, and the loss falls."""
    scenario = await run_scenario(tmp_path, {})
    scenario.require_sound()
    assert scenario.loss < LinearTask().loss(LinearTask().initial_parameters())
    assert all(done.attempts == 1 for peer in scenario.outcome.peers for done in peer.rounds)


@pytest.mark.parametrize(("kind", "cause"), PROVABLE)
@pytest.mark.parametrize("index", [0, 3])
async def test_provable_cheat_is_banned_at_once(autojump_clock, tmp_path, kind, cause, index):
    """Whoever leaves a proof is banned in the round it acts, or the next; even if it founded the run."""
    scenario = await run_scenario(tmp_path, {index: kind})
    scenario.require_sound()
    scenario.require_banned(index, cause)


@pytest.mark.parametrize("kind", ["sign-flip", "random-direction"])
async def test_false_gradient_is_banned_by_its_validator(autojump_clock, tmp_path, kind):
    """A false gradient is banned once it is drawn; until then clipping bounds its harm."""
    scenario = await run_scenario(tmp_path, {1: kind}, size=6, rounds=25)
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_GRADIENT, within=25)
    assert scenario.loss < 6


async def test_false_accuser_is_banned_in_the_round_after(autojump_clock, tmp_path):
    """Who accuses an honest target loses the dispute, and its place."""
    scenario = await run_scenario(tmp_path, {1: "false-accusation"}, size=6, rounds=20)
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_ACCUSATION)


async def test_withheld_slices_remove_their_owner(autojump_clock, tmp_path):
    """Who neither sends nor publishes its slices is removed; the ledger shows that nobody attested them."""
    scenario = await run_scenario(tmp_path, {1: "withhold"})
    scenario.require_sound()
    scenario.require_removed(1, Cause.WITHHOLDING)


async def test_one_victim_is_enough(autojump_clock, tmp_path):
    """Who withholds its slice from a single aggregator, and does not publish it, is removed all the same."""
    scenario = await run_scenario(tmp_path, {1: lambda *_: Withhold(2, victims=1)})
    scenario.require_sound()
    scenario.require_removed(1, Cause.WITHHOLDING)


async def test_published_slices_save_their_owner(autojump_clock, tmp_path):
    """Who publishes when somebody complains stays, and so does the complainer: who lied is not decidable."""
    attack = Withhold(2, victims=1, is_published=True)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, rounds=3)
    scenario.require_sound()
    assert scenario.departures(1) == []


async def test_silent_nonce_removes_its_owner(autojump_clock, tmp_path):
    """Who never reveals is removed by the certificate of a recovery, and the draw is made anew without it."""
    scenario = await run_scenario(tmp_path, {1: "withhold-reveal"})
    scenario.require_sound()
    scenario.require_removed(1, Cause.SILENCE)


async def test_lazy_validator_stays_and_harms_nobody(autojump_clock, tmp_path):
    """A validator that never accuses cannot be convicted; other validators find the attacker."""
    scenario = await run_scenario(tmp_path, {1: "lazy-validator", 2: "sign-flip"}, rounds=25)
    scenario.require_sound()
    assert scenario.departures(1) == []
    scenario.require_banned(2, Cause.FALSE_GRADIENT, within=25)


PROVABLE_CAUSES = dict(PROVABLE)
TOGETHER = [
    ("lying-projection", "equivocate", "wrong-aggregate"),
    ("false-naming", "lying-projection"),
    ("withhold", "false-naming", "withhold-reveal"),
    ("equivocate", "withhold"),
    ("wrong-aggregate", "wrong-aggregate", "wrong-aggregate"),
]


@pytest.mark.parametrize("kinds", TOGETHER, ids="+".join)
async def test_attackers_of_several_kinds_at_once(autojump_clock, tmp_path, kinds):
    """Two or three attackers that act in one round all leave in that round or the next."""
    scenario = await run_scenario(tmp_path, every_other(kinds), size=8)
    scenario.require_sound()
    for index, kind in every_other(kinds).items():
        departed = scenario.departure(index)
        assert departed.round <= scenario.attacker(index).acted_in_round + 1
        assert departed.cause is PROVABLE_CAUSES.get(kind, departed.cause)


async def test_seven_mixed_attackers_of_sixteen(autojump_clock, tmp_path):
    """Seven of sixteen, of different kinds: all that act are gone in the end."""
    kinds = every_other(draw_mixed(0, 7))
    scenario = await run_scenario(tmp_path, kinds, size=16, rounds=20, first_round=3, delivery=lambda *message: 0.05)
    scenario.require_sound()
    assert {index for index in kinds if scenario.departures(index)} == set(kinds)
