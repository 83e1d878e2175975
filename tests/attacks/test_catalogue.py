"""Attackers by name: all of them, drawn without repetition, honest until their round."""

from collections import Counter

import pytest
import torch

from btard.attacks import EXEMPT, KINDS, draw_mixed, make_attacker
from btard.attacks.gradients import draw_direction
from btard.errors import ConfigError
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.messages import Agree, Phase, Report, Stage
from btard.rules.parts import Part
from btard.swarm.state import commit_to
from btard.wire import sign_message

IDENTITY = Identity(bytes(32))
OTHERS = [Identity(bytes([k]) * 32).peer_id for k in (1, 2)]
CONFIG = RunConfig(founder=IDENTITY.peer_id.hex(), elements=16, chunk_size=8)
GRADIENT = commit_to(torch.linspace(-1, 1, 16), 8)
PART = Part(0, IDENTITY.peer_id, range(2), 0, 16, tau=2.0, delta=9.0)
REPORTS = (Report((1.0, 2.0), 3.0),)


def make(kind, directory, first_round=5, seed=0):
    """Return the attacker of a kind that begins in round 5."""
    return make_attacker(
        kind, seed=seed, first_round=first_round, config=CONFIG, me=IDENTITY.peer_id, coalition=directory
    )


def test_there_are_eleven_kinds():
    """Eleven kinds; the one that nobody can prove is among them."""
    assert len(KINDS) == len(set(KINDS)) == 11
    assert EXEMPT < set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_attackers_are_honest_before_their_round(tmp_path, kind, autojump_clock):
    """In every choice an attacker does what an honest peer would, and notes nothing, until its first round."""
    attacker = make(kind, tmp_path)
    zeros, stage = torch.zeros(16), Stage(4, 0, Phase.REVEAL)
    message = sign_message(IDENTITY, bytes(32), bytes(32), Stage(4, 0, Phase.CHECK), b"", Agree(bytes(32)))
    assert attacker.commitment(4, GRADIENT, 8) is GRADIENT
    assert attacker.says(stage)
    assert [attacker.deliver(message, peer, IDENTITY, bytes(32)) for peer in OTHERS] == 2 * [message.envelope]
    assert attacker.sends_slice(4, OTHERS[0])
    assert attacker.publishes_slice(4)
    assert attacker.sends_part(4, OTHERS[0])
    assert attacker.aggregate(4, 0, PART, zeros) is zeros
    assert await attacker.reports(4, 0, (PART,), REPORTS) == REPORTS
    assert attacker.verdict(4, OTHERS[0], guilty=True)
    assert not attacker.verdict(4, OTHERS[0], guilty=False)
    assert attacker.namings(4, (), tuple(OTHERS)) == ()
    assert attacker.acted_in_round is None


def test_the_first_act_is_announced_once(tmp_path):
    """``on_first_act`` is called with the round of the first act, and not again."""
    told: list[int] = []
    attacker = make("sign-flip", tmp_path)
    attacker.on_first_act = told.append
    for number in (4, 7, 8):
        attacker.commitment(number, GRADIENT, 8)
    assert told == [attacker.acted_in_round] == [7]


def test_false_gradients_are_what_they_say(tmp_path):
    """Sign flipping is -1000 g; random direction is 1000 ‖g‖ long, the same for all attackers of a seed."""
    flipped = make("sign-flip", tmp_path).commitment(5, GRADIENT, 8)
    assert torch.equal(flipped.values, -1000 * GRADIENT.values)
    assert flipped.tree.root == commit_to(flipped.values, 8).tree.root
    first, second, other = (make("random-direction", tmp_path, seed=s).commitment(5, GRADIENT, 8) for s in (0, 0, 1))
    assert torch.equal(first.values, second.values)
    assert not torch.equal(first.values, other.values)
    assert float(first.values.norm() / GRADIENT.values.norm()) == pytest.approx(1000, rel=1e-5)
    assert float(draw_direction(3, 100).norm()) == pytest.approx(1, rel=1e-5)


def test_unknown_attack_and_missing_coalition_are_our_mistakes(tmp_path):
    """A wrong name lists the right ones; colluders need a place to meet."""
    with pytest.raises(ConfigError, match="sign-flip"):
        make("sign-flop", tmp_path)
    with pytest.raises(ConfigError, match="directory"):
        make("collude", None)


@pytest.mark.parametrize("byzantine", range(11))
def test_mixed_draws_differ_by_seed_and_never_repeat(byzantine):
    """Every draw fills all places with different kinds; colluders come as a pair, or not at all."""
    draws = [draw_mixed(seed, byzantine) for seed in range(50)]
    for kinds in draws:
        counts = Counter(kinds)
        assert len(kinds) == byzantine
        assert counts.pop("collude", 2) == 2
        assert set(counts.values()) <= {1}
        assert set(kinds) <= set(KINDS)
    assert draws == [draw_mixed(seed, byzantine) for seed in range(50)]
    if 0 < byzantine < 10:
        assert len({tuple(sorted(kinds)) for kinds in draws}) > 1


def test_there_are_only_so_many_kinds():
    """More attackers than kinds is a mistake, said in words."""
    with pytest.raises(ConfigError, match="at most"):
        draw_mixed(0, 13)
