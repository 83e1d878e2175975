"""How long members wait for the end of a run to be settled."""

import pytest
from tests.rules.build import make_roster

from btard.rules.dolev_strong import compute_end
from btard.swarm.exchange import Patience
from btard.swarm.parting import LOOKS, compute_look
from btard.swarm.services import Deadlines

DELAY_S = 2.0
CONCLUDING = 4
"""Δ after the last step of a fallback in which its conclusions are with all, whoever entered when."""


@pytest.mark.parametrize("size", range(4, 257))
def test_nobody_ends_in_the_midst_of_two_fallbacks(size: int) -> None:
    """A look spans a phase, its HALT and the steps of a fallback; all looks span two whole recoveries, twice over."""
    tolerated, deadlines = make_roster(size).tolerated(), Deadlines(3.0, 5.0, 4.25 * DELAY_S)
    halt, steps = Patience(deadlines.check, DELAY_S).halt, compute_end(tolerated, DELAY_S)
    look = compute_look(deadlines.check, tolerated, DELAY_S)
    assert look >= halt + steps
    assert LOOKS * look >= 2 * 2 * (halt + steps + CONCLUDING * DELAY_S)


@pytest.mark.parametrize(("size", "beyond"), [(1, 9), (3, 9), (4, 9), (5, 11), (16, 21), (64, 69), (256, 261)])
def test_small_swarms_wait_little(size: int, beyond: int) -> None:
    """Δ beyond the deadline until the first look."""
    assert compute_look(7.0, make_roster(size).tolerated(), DELAY_S) == 7.0 + beyond * DELAY_S
