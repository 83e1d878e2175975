"""A candidate that computes nothing, and what it says instead."""

import pytest

from btard.attacks import ADVERSARIES, IDLE_CANDIDATE, KINDS, make_attacker
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.messages import Report
from btard.rules.sampling import Finding, is_sample, judge_sample

ME = Identity(bytes(32)).peer_id
CONFIG = RunConfig(founder=ME.hex(), elements=16, chunk_size=8)
TRUE = Report((0.5,) * CONFIG.projections, 1.0)


def make(first_round: int):
    """Return an idle candidate."""
    return make_attacker(IDLE_CANDIDATE, seed=0, first_round=first_round, config=CONFIG, me=ME)


def test_idle_candidate_computes_nothing() -> None:
    """It says what could be a sample, another each round, without computing one, and no recomputation agrees."""
    acts = []
    idle = make(1)
    idle.on_first_act = acts.append
    samples = [idle.sample(number, lambda: pytest.fail("it computed")) for number in (7, 8)]
    assert all(is_sample(CONFIG, sample) for sample in samples)
    assert samples[0] != samples[1]
    assert {judge_sample(CONFIG, sample, TRUE, 1.0) for sample in samples} == {Finding.FALSE}
    assert acts == [7]


def test_idle_candidate_is_honest_before_its_round() -> None:
    """Until then it computes like everybody."""
    assert make(9).sample(8, lambda: TRUE) is TRUE


def test_idle_candidates_are_no_adversaries_of_members() -> None:
    """Only a candidate can be idle: neither the demo's attackers nor the simulator's are drawn from this kind."""
    assert IDLE_CANDIDATE not in {*KINDS, *ADVERSARIES}
