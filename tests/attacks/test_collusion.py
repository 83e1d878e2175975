"""Collusion: a wrong aggregate that V1 cannot see is still found, because targets are drawn after the reports (A1)."""

import math

import pytest
import torch
from tests.attacks.scenario import every_other, run_scenario

from btard.attacks import Collude, SharedCoalition
from btard.identity import Identity
from btard.rules.evidence import Cause
from btard.rules.messages import Report
from btard.rules.parts import Part
from btard.swarm.state import commit_to

FOUND = {Cause.FALSE_REPORT, Cause.WRONG_AGGREGATE}


@pytest.mark.parametrize("seed", [0, 1])
async def test_covered_up_aggregate_is_found_by_validators(autojump_clock, tmp_path, seed):
    """Coverers know the directions when they lie, not who will be checked: one is caught, then its aggregator."""
    scenario = await run_scenario(tmp_path, {1: "collude", 2: "collude"}, size=8, rounds=60, seed=seed)
    scenario.require_sound()
    for index in (1, 2):
        assert scenario.departure(index).cause in FOUND
    rounds = sorted(scenario.departure(index).round for index in (1, 2))
    assert rounds[0] > scenario.attacker(1).acted_in_round  # the sums did vanish: nothing was found at once


@pytest.mark.parametrize("size", [8, 16])
async def test_almost_half_colluding(autojump_clock, tmp_path, size):
    """Three of eight, seven of sixteen: each lie that a validator proves opens the column, and with it all coverers."""
    colluders = every_other(["collude"] * ((size - 1) // 2))
    scenario = await run_scenario(tmp_path, colluders, size=size, rounds=50 if size == 8 else 20)
    scenario.require_sound()
    for index in colluders:
        assert scenario.departure(index).cause in FOUND


async def test_survivor_goes_on_as_wrong_aggregate(autojump_clock, tmp_path):
    """A colluder whose partner is gone moves its aggregate uncovered, and is banned in that round or the next."""
    scenario = await run_scenario(tmp_path, {1: "collude"}, rounds=4)
    scenario.require_sound()
    scenario.require_banned(1, Cause.WRONG_AGGREGATE)


async def test_colluder_and_other_attackers(autojump_clock, tmp_path):
    """A pair of colluders beside a false accuser of eight: all three leave."""
    attackers = {1: "collude", 2: "collude", 3: "false-accusation"}
    scenario = await run_scenario(tmp_path, attackers, size=8, rounds=30)
    scenario.require_sound()
    assert all(scenario.departures(index) for index in attackers)


ALICE, BOB, CAROL = sorted(Identity(bytes([k]) * 32).peer_id for k in range(3))
GRADIENT = commit_to(torch.ones(16), 8)
PART = Part(0, ALICE, range(2), 0, 16, tau=2.0, delta=9.0)


def make_pair() -> tuple[Collude, Collude]:
    """Return Alice and Bob, who both contribute in round 3."""
    board = SharedCoalition()
    pair = Collude(2, 0, ALICE, board, 1.0), Collude(2, 0, BOB, board, 1.0)
    for member in pair:
        member.commitment(3, GRADIENT, 8)
    return pair


async def test_sums_vanish_and_no_projection_is_impossible(autojump_clock):
    """The coverer takes over the whole sum, and claims a norm that allows it."""
    alice, bob = make_pair()
    assert not torch.equal(alice.aggregate(3, 0, PART, torch.zeros(16)), torch.zeros(16))
    assert torch.equal(bob.aggregate(3, 0, PART, torch.zeros(16)), torch.zeros(16))
    true = {ALICE: Report((1.0, 2.0), 1.0), BOB: Report((3.0, -1.0), 0.5), CAROL: Report((-1.0, 0.5), 2.0)}
    await alice.found(3, 0, PART, true)
    (forged,) = await bob.reports(3, 0, (PART,), (true[BOB],))
    claimed = [true[ALICE], forged, true[CAROL]]
    assert [math.fsum(column) for column in zip(*(report.projections for report in claimed), strict=True)] == [0, 0]
    assert forged.norm == PART.tau
    assert alice.namings(3, (BOB, CAROL), (ALICE, BOB, CAROL)) == (CAROL,)
    assert (alice.acted_in_round, bob.acted_in_round) == (3, 3)


async def test_coverer_does_not_wait_for_ever(autojump_clock):
    """A partner that dies before it tells what to forge leaves honest reports behind."""
    alice, bob = make_pair()
    alice.aggregate(3, 0, PART, torch.zeros(16))
    report = Report((3.0,), 1.0)
    assert await bob.reports(3, 0, (PART,), (report,)) == (report,)


def test_partners_do_not_accuse_one_another():
    """A colluding validator finds its partner honest, and others as they are."""
    alice, _ = make_pair()
    assert not alice.verdict(3, BOB, guilty=True)
    assert alice.verdict(3, CAROL, guilty=True)
    assert not alice.verdict(3, CAROL, guilty=False)


def test_nobody_moves_an_aggregate_that_nobody_can_cover():
    """While the only partner validates, and before the first round, the coalition lies low."""
    board = SharedCoalition()
    alice, bob = Collude(2, 0, ALICE, board, 1.0), Collude(2, 0, BOB, board, 1.0)
    zeros = torch.zeros(16)
    alice.commitment(3, GRADIENT, 8)
    bob.verdict(2, CAROL, guilty=False)
    assert torch.equal(alice.aggregate(3, 0, PART, zeros), zeros)
    assert torch.equal(make_pair()[0].aggregate(1, 0, PART, zeros), zeros)
