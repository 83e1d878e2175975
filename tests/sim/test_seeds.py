"""Whole scenarios from seeds: a fixed set, and a few fresh ones whose command is printed should they fail."""

import os
from pathlib import Path

import pytest

from btard.identity import Context, digest
from btard.sim.drawing import Order
from btard.sim.play import play

FIXED = tuple((seed, 4 + seed % 7) for seed in range(1, 9))
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or os.urandom(8).hex()
"""The same in all processes of one run of the tests, another in every run."""
FRESH = tuple((int.from_bytes(digest(Context.EXPAND, RUN.encode(), bytes([peers]))[:4]), peers) for peers in (5, 7, 9))


def require_sound(order: Order, seed: int, directory: Path) -> None:
    """Play the scenario of a seed; whatever is violated is told with the command that repeats it."""
    scenario = order.draw(seed)
    report = play(scenario, directory)
    told = [f"{item.invariant}, round {item.round}: {item.detail}" for item in report.violations]
    assert told == [], order.command(seed)
    assert report.rounds_done == scenario.rounds or not scenario.is_synchronous, order.command(seed)


@pytest.mark.parametrize(("seed", "peers"), FIXED)
def test_the_invariants_hold(seed: int, peers: int, tmp_path: Path) -> None:
    """Whatever these seeds draw, no invariant is violated."""
    require_sound(Order(peers=peers, rounds=10), seed, tmp_path)


@pytest.mark.parametrize(("seed", "peers"), FRESH)
def test_the_invariants_hold_for_fresh_seeds(seed: int, peers: int, tmp_path: Path) -> None:
    """As many adversaries as can be tolerated, of whatever kinds: the test's name has the seed that nobody has seen."""
    require_sound(Order(peers=peers, byzantine=(peers + 1) // 2 - 1, rounds=10), seed, tmp_path)
