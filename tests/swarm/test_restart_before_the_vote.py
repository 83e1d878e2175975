"""Whoever is started again between DISPUTE_PUBLISH and VOTE has a whole column to ask for, and votes in time."""

from pathlib import Path

import pytest
import torch
import trio
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import kill_after
from torch import Tensor

from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.rules.parts import Part
from btard.swarm.conduct import Conduct

LIES, CRASHES = 1, 2
CONFIG = {"genesis_size": 24, "rounds": 2, "validators": 0}


class WrongAggregate(Conduct):
    """One wrong aggregate, in round 2."""

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return another one."""
        return aggregate + 5.0 if round_number == 2 and part.elements else torch.clone(aggregate)


async def test_a_large_column_does_not_keep_its_voter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Messages take nearly Δ: 23 slices one after another would take 44Δ."""
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={LIES: WrongAggregate()})
    hostile.swarm.network.delivery = lambda *_: 0.95
    killed = kill_after(hostile.swarm, CRASHES, Phase.DISPUTE_PUBLISH, 2, back_s=0.3)
    outcome = await hostile.run()
    assert killed
    assert set(outcome.departures(DepartureKind.BAN)) == {LIES}
    assert not outcome.departures(DepartureKind.REMOVAL)
