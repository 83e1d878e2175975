"""Just under half of a swarm, acting as one from a plan that a seed draws."""

import pytest
import torch
from tests.attacks.scenario import run_scenario

from btard.attacks import Attacker, Conspire, SharedCoalition
from btard.attacks.conspiring import TACTICS
from btard.identity import Identity
from btard.rules.parts import Part

PEERS = [Identity(bytes([k]) * 32).peer_id for k in range(3)]
PART = Part(0, PEERS[0], range(2), 0, 2, tau=2.0, delta=9.0)


class Adds(Attacker):
    """A role that can be told from others."""

    def __init__(self, number):
        super().__init__(2)
        self._number = number

    def aggregate(self, round_number, attempt, part, aggregate):
        """Return the aggregate plus a number."""
        self.note_act(round_number)
        return aggregate + self._number


def make_members(tactics, seed=0):
    """Return three members of a coalition whose roles add one and two."""
    board = SharedCoalition()
    return [Conspire(2, seed, me, board, {"one": Adds(1), "two": Adds(2)}, tactics) for me in PEERS]


def ask(member, round_number):
    """Return what a member adds in a round."""
    return float(member.aggregate(round_number, 0, PART, torch.zeros(2))[0])


def test_members_follow_one_plan():
    """In each round all do the same tactic and its roles are spread over them; the plan depends on the seed alone."""
    plans = []
    for seed in (0, 0, 1):
        members = make_members((("one",), ("one", "two"), ("",)), seed)
        plans.append([tuple(ask(member, number) for member in members) for number in range(2, 40)])
    assert plans[0] == plans[1] != plans[2]
    assert {tuple(sorted(round_)) for round_ in plans[0]} == {(1, 1, 1), (1, 1, 2), (1, 2, 2), (0, 0, 0)}


def test_members_lie_low_before_their_round_and_protect_one_another():
    """Before the first round the plan is honesty; from then on no fellow is accused or named."""
    member, *_ = make_members((("one",),))
    assert ask(member, 1) == 0
    assert member.verdict(1, PEERS[1], guilty=True)
    assert member.acted_in_round is None
    assert not member.verdict(2, PEERS[1], guilty=True)
    assert member.namings(2, tuple(PEERS), ()) == ()
    assert ask(member, 2) == 1
    assert member.acted_in_round == 2


def test_the_plan_has_all_kinds_of_tactics():
    """Twenty tactics and more, of one to three roles."""
    assert len(TACTICS) == len(set(TACTICS)) > 20
    assert {len(tactic) for tactic in TACTICS} == {1, 2, 3}


@pytest.mark.parametrize(("size", "seed"), [(4, 0), (7, 1), (7, 2), (8, 3), (9, 4)])
async def test_just_under_half_acting_as_one(autojump_clock, tmp_path, size, seed):
    """Whatever the plan, the honest finish every round with one state, and lose nobody of theirs."""
    attackers = dict.fromkeys(range(1, size, 2)[: (size - 1) // 2], "plan")
    scenario = await run_scenario(tmp_path, attackers, size=size, rounds=12, seed=seed, delivery=lambda *message: 0.05)
    scenario.require_sound()
    assert [index for index in attackers if scenario.departures(index)], "in a dozen rounds some tactic costs a place"
