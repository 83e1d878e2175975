"""The adversaries of the simulator by name, alone and composed: honest until their round, the same for equal seeds."""

from dataclasses import replace

import pytest
import torch

from btard.attacks import ADVERSARIES, KINDS, SIMULATED, Attacker, Composed, Post, SignFlip, make_adversary
from btard.attacks.attacker import prefer
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.messages import (
    Aggregate,
    Attest,
    Ballot,
    Check,
    Opinion,
    Phase,
    Report,
    Reveal,
    Stage,
    Vote,
)
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.state import commit_to
from btard.wire import sign_message

IDENTITY = Identity(bytes(32))
OTHERS = [Identity(bytes([k]) * 32).peer_id for k in (1, 2)]
ROSTER = Roster.of([IDENTITY.peer_id, *OTHERS])
CONFIG = RunConfig(founder=IDENTITY.peer_id.hex(), elements=16, chunk_size=8)
GRADIENT = commit_to(torch.linspace(-1, 1, 16), 8)
PART = Part(0, IDENTITY.peer_id, range(2), 0, 16, tau=2.0, delta=9.0)
REPORTS = (Report((1.0, 2.0), 3.0),)
PAYLOADS = {
    Phase.AGGREGATE: Aggregate(bytes(32), 1.0, (), bytes(32), ()),
    Phase.REVEAL: Reveal(bytes(32), ()),
    Phase.CHECK: Check(REPORTS, bytes(32)),
    Phase.ATTEST: Attest((True, False)),
    Phase.VOTE: Vote((Opinion((OTHERS[0],), (), ()),)),
}
RECOVERY = {Phase.BALLOT: Ballot((), bytes(32))}


def make(*kinds, seed=0, first_round=5):
    """Return an adversary of these kinds."""
    return make_adversary(kinds, Post(CONFIG, IDENTITY.peer_id, seed, first_round))


def sign(phase, payload, number=4):
    """Return a message of ours."""
    return sign_message(IDENTITY, CONFIG.run_id, ROSTER.digest, Stage(number, 0, phase), b"", payload)


def test_those_of_the_command_line_come_first():
    """Every kind of the command line is an adversary of the simulator, and about thirty more are."""
    assert tuple(ADVERSARIES) == (*KINDS, *SIMULATED)
    assert len(SIMULATED) >= 29


@pytest.mark.parametrize("kind", ADVERSARIES)
async def test_adversaries_are_honest_before_their_round(kind):
    """Whatever is asked before the first round is answered as an honest peer would, and nothing is noted."""
    adversary = make(kind)
    zeros = torch.zeros(16)
    for phase, payload in PAYLOADS.items():
        assert adversary.payload(Stage(4, 0, phase), ROSTER, payload) is payload
        message = sign(phase, payload)
        assert [adversary.deliver(message, peer, IDENTITY, CONFIG.run_id) for peer in OTHERS] == 2 * [message.envelope]
    for phase, payload in RECOVERY.items():
        assert adversary.payload(Stage(0, 0, phase), ROSTER, payload) is payload
    assert adversary.commitment(4, GRADIENT, 8) is GRADIENT
    assert adversary.says(Stage(4, 0, Phase.REVEAL))
    assert adversary.sends_slice(4, OTHERS[0])
    assert adversary.publishes_slice(4)
    assert adversary.sends_part(4, OTHERS[0])
    assert adversary.aggregate(4, 0, PART, zeros) is zeros
    assert await adversary.reports(4, 0, (PART,), REPORTS) == REPORTS
    await adversary.found(4, 0, PART, {})
    assert adversary.verdict(4, OTHERS[0], guilty=True)
    assert adversary.namings(4, (), tuple(OTHERS)) == ()
    assert adversary.acted_in_round is None


def test_composed_adversaries_do_everything_at_once():
    """A composition works through all hooks, is named after its members and tells the first act of any."""
    told = []
    adversary = make("sign-flip", "poison-reports", "withhold-reveal")
    adversary.on_first_act = told.append
    assert isinstance(adversary, Composed)
    assert adversary.kind == "sign-flip+poison-reports+withhold-reveal"
    assert torch.equal(adversary.commitment(5, GRADIENT, 8).values, -1000 * GRADIENT.values)
    assert adversary.payload(Stage(5, 0, Phase.CHECK), ROSTER, PAYLOADS[Phase.CHECK]) != PAYLOADS[Phase.CHECK]
    assert not adversary.says(Stage(6, 0, Phase.REVEAL))
    assert adversary.aggregate(6, 0, PART, GRADIENT.values) is GRADIENT.values
    assert told == [adversary.acted_in_round] == [5]


def test_a_wrong_aggregate_of_a_void_attempt_is_no_act():
    """Whoever has no part when the round is run again has changed nothing: nobody can be expected to convict it."""
    for kinds in (("wrong-aggregate",), ("wrong-aggregate", "lying-projection")):
        adversary, nothing = make(*kinds), torch.zeros(0)
        adversary.aggregate(6, 0, PART, GRADIENT.values)
        assert adversary.acted_in_round == 6
        adversary.aggregate(6, 1, replace(PART, stop=PART.start), nothing)
        assert adversary.acted_in_round is None
        adversary.aggregate(7, 1, PART, GRADIENT.values)
        adversary.aggregate(8, 1, replace(PART, stop=PART.start), nothing)
        assert adversary.acted_in_round == 7


def test_composition_keeps_the_order_of_its_members():
    """Each member works on what the one before it made; of changed bytes the first count."""

    class Doubles(Attacker):
        def aggregate(self, round_number, attempt, part, aggregate):
            return 2 * aggregate

        def deliver(self, message, recipient, identity, run_id):
            return b"doubled"

    class AddsOne(Attacker):
        def aggregate(self, round_number, attempt, part, aggregate):
            return aggregate + 1

        def deliver(self, message, recipient, identity, run_id):
            return b"added"

    both = Composed([SignFlip(9), Doubles(0), AddsOne(0)])
    assert both.aggregate(1, 0, PART, torch.ones(2)).tolist() == [3, 3]
    assert both.deliver(sign(Phase.CHECK, PAYLOADS[Phase.CHECK]), OTHERS[0], IDENTITY, CONFIG.run_id) == b"doubled"
    assert both.first_round == 0


def test_those_who_share_a_seed_prefer_the_same_victim():
    """Whom each can reach differs, and they still agree on the first that both can."""
    crowd = [Identity(bytes([k]) * 32).peer_id for k in range(9)]
    victim = prefer(crowd, "seed", 3)
    assert prefer([peer for peer in crowd if peer != crowd[0]], "seed", 3) in {victim, *crowd[1:]}
    assert all(prefer([peer, victim], "seed", 3) == victim for peer in crowd)
    assert len({prefer(crowd, "seed", number) for number in range(50)}) > 1
    assert prefer([], "seed") is None
