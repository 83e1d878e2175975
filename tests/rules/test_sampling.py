"""Samples of a candidate's gradient: they need the gradient, and tell lies from other machines."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config

from btard.identity import PeerId
from btard.rules.messages import Report
from btard.rules.sampling import Finding, compute_sample, is_sample, judge_sample

CONFIG = make_config(tolerance=1e-3)
ADA, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)
Q = b"q" * 32


def gradient(seed: int = 0) -> torch.Tensor:
    """A gradient of the run's length."""
    return torch.randn(CONFIG.elements, generator=torch.Generator().manual_seed(seed))


def sample(values: torch.Tensor, peer: PeerId = ADA, number: int = 7) -> Report:
    """What ``peer`` says of it."""
    return compute_sample(CONFIG, Q, number, peer, values)


def test_a_true_sample_is_found_true():
    """The same gradient gives the same sample, wherever it is worked out."""
    assert judge_sample(CONFIG, sample(gradient()), sample(gradient()), 0.5) is Finding.TRUE
    assert is_sample(CONFIG, sample(gradient()))


@pytest.mark.parametrize("values", [gradient(1), -gradient(), 1.2 * gradient(), torch.zeros(64)])
def test_another_gradient_is_a_lie(values):
    """Of other data, turned round, or scaled: nobody says what it gives without working it out."""
    assert judge_sample(CONFIG, sample(values), sample(gradient()), 1.0) is Finding.FALSE


def test_what_another_machine_may_round_is_no_lie():
    """Half of the tolerance passes with all; between that and a tenth of the norm it is another kind of machine."""
    own = sample(gradient())
    found = [judge_sample(CONFIG, sample(gradient() * (1 + share * 1e-3)), own, 0.5) for share in (0.4, 0.6, 50)]
    assert found == [Finding.TRUE, Finding.DIFFERENT, Finding.DIFFERENT]
    assert judge_sample(CONFIG, sample(gradient() * (1 + 0.6e-3)), own, 1.0) is Finding.TRUE


@given(st.floats(-1.0, 1.0), st.floats(-0.05, 0.05))
def test_an_honest_checker_never_loses(theirs, ours):
    """Whatever a checker charges, every voter whose machine rounds like its own finds false as well (attacks B7)."""
    claimed, checker = sample(gradient() * (1 + theirs * 4e-3)), sample(gradient())
    voter = sample(gradient() * (1 + ours * 1e-3))
    if judge_sample(CONFIG, claimed, checker, 1.0) is not Finding.TRUE:
        assert judge_sample(CONFIG, claimed, voter, 0.5) is not Finding.TRUE


def test_a_sample_is_for_one_candidate_and_one_round():
    """Nobody passes off another's sample, or an old one."""
    assert len({sample(gradient(), peer, number) for peer in (ADA, BOB) for number in (7, 8)}) == 4


def test_a_gradient_that_is_not_finite_counts_as_zeros():
    """On both sides alike (attacks B5)."""
    spoilt = gradient()
    spoilt[3] = torch.inf
    assert sample(spoilt) == sample(torch.zeros(64)) == Report((0.0,) * CONFIG.projections, 0.0)


@pytest.mark.parametrize(
    "report",
    [
        Report((0.0,) * 9, 1.0),
        Report((0.0,) * 11, 1.0),
        Report((float("nan"),) * 10, 1.0),
        Report((float("inf"),) * 10, 1.0),
        Report((0.0,) * 10, float("nan")),
        Report((0.0,) * 10, -1.0),
        Report((1e200,) * 10, 1.0),
    ],
)
def test_what_is_no_sample_is_told(report):
    """Other lengths, and numbers that no gradient gives."""
    assert not is_sample(CONFIG, report)
