"""Lies at the end of a recovery that has no certificate: conclusions and chains; all honest members settle the same."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import ADVERSARIES, EquivocateInHalves, Post, WithholdWord
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause
from btard.rules.messages import Ballot, Conclude, Phase, Stage
from btard.rules.roster import Roster
from btard.swarm.events import Recovered

CONCLUDE_TWICE = "two conclusions"
KINDS = {
    **{
        kind: kind
        for kind in ("lie-in-conclude", "withhold-conclude", "withhold-chains", "chains-to-half", "late-chains")
    },
    CONCLUDE_TWICE: lambda swarm, index: EquivocateInHalves(2, 0, phases=frozenset({Phase.CONCLUDE})),
}


def find_recoveries(scenario):
    """Every recovery that an honest peer came through."""
    return [event for peer in scenario.outcome.honest for event in peer.events if isinstance(event, Recovered)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
async def test_lies_after_the_ballots_change_no_decision(autojump_clock, tmp_path, kind, seed):
    """Dolev-Strong runs, the silent member is removed by it, and whoever lied in it changed nothing."""
    attackers = {1: KINDS[kind], 3: "withhold-reveal", 5: "lie-in-ballot"}
    scenario = await run_scenario(tmp_path, attackers, seed=seed, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert any(event.is_fallback for event in find_recoveries(scenario))
    scenario.require_removed(3, Cause.SILENCE)
    assert scenario.attacker(1).acted_in_round is not None


@pytest.mark.parametrize(
    "kind", ["lie-in-conclude", "withhold-conclude", "withhold-chains", "chains-to-half", "replay-chains"]
)
async def test_just_under_half_lie_after_the_ballots(autojump_clock, tmp_path, kind):
    """As many as can be tolerated halt, cast ballots that nobody equals, and lie together at the end."""
    attackers = dict.fromkeys((1, 3, 5), f"halt-always+lie-in-ballot+{kind}")
    scenario = await run_scenario(tmp_path, attackers, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert any(event.is_fallback for event in find_recoveries(scenario))
    assert all(scenario.attacker(index).acted_in_round is not None for index in attackers)


@pytest.mark.parametrize("seed", range(3))
async def test_chains_in_the_last_step_that_counts_reach_all_or_none(autojump_clock, tmp_path, seed):
    """Two who show their views to one half in the step for which their signatures suffice split nobody."""
    attackers = {1: "late-chains", 3: "halt-always+withhold-ballot", 5: "late-chains"}
    scenario = await run_scenario(tmp_path, attackers, seed=seed, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert any(event.is_fallback for event in find_recoveries(scenario))
    assert all(scenario.attacker(index).acted_in_round is not None for index in attackers)


async def test_ballots_kept_by_three_of_seven_stop_no_decision(autojump_clock, tmp_path):
    """The ballots of the honest alone are more than half: they are elected, and nobody leaves for what it kept."""
    attackers = {1: "halt-always+withhold-ballot", 3: "withhold-ballot", 5: "withhold-ballot"}
    scenario = await run_scenario(tmp_path, attackers, rounds=4, delivery=lambda *message: 0.02)
    scenario.require_sound()
    recoveries = find_recoveries(scenario)
    assert recoveries
    assert {event.is_fallback for event in recoveries} == {True}
    scenario.require_stays(3, 5)


def test_each_lie_is_a_conclusion_about_something_else():
    """Another digest, another member that did not vote, or another that showed two; ballots stay as they are."""
    peers = [Identity(bytes([k]) * 32).peer_id for k in range(4)]
    roster = Roster.of(peers)
    liar = ADVERSARIES["lie-in-conclude"](Post(RunConfig(founder=peers[0].hex()), peers[0], 0, 1))
    said, ballot = Conclude(b"v" * 32, (), ()), Ballot((), b"v" * 32)
    liar.payload(Stage(1, 0, Phase.COMMIT), roster, said)
    told = [liar.payload(Stage(0, 0, Phase.CONCLUDE, serial), roster, said) for serial in range(12)]
    assert said not in told
    assert {(item.views != said.views, bool(item.unvoted), bool(item.split)) for item in told} == {
        (True, False, False),
        (False, True, False),
        (False, False, True),
    }
    assert peers[0] not in {peer for item in told for peer in (*item.unvoted, *item.split)}
    assert liar.payload(Stage(0, 0, Phase.BALLOT), roster, ballot) is ballot


def test_one_phase_is_kept_from_its_round_on():
    """Whoever keeps its ballots says everything else, and its ballots before."""
    keeps = WithholdWord(3, Phase.BALLOT)
    assert keeps.says(Stage(2, 0, Phase.CONFIRM))
    assert keeps.says(Stage(0, 0, Phase.BALLOT))
    assert keeps.acted_in_round is None
    assert keeps.says(Stage(3, 0, Phase.COMMIT))
    assert keeps.says(Stage(0, 0, Phase.VIEW))
    assert not keeps.says(Stage(0, 0, Phase.BALLOT))
    assert keeps.acted_in_round == 3
