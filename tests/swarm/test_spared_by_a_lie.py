"""An aggregator that aggregated falsely, and says that it lacks a slice which all others hold."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import lag

from btard.attacks.coalition import SharedCoalition
from btard.attacks.collusion import Collude
from btard.rules.disputes import Dispute, DisputeKind
from btard.rules.draws import Assignment
from btard.rules.evidence import Cause, DepartureKind
from btard.swarm import round as rounds
from btard.swarm import settling
from btard.swarm.exhibits import find_wanted
from btard.swarm.services import Services
from btard.swarm.state import Work

ROUND = 2
CONFIG = {"genesis_size": 5, "rounds": 4, "validators": 1}


class Once(Collude):
    """One aggregate is moved, in one round, and a partner's report hides it."""

    def is_due(self, number: int) -> bool:
        """Whether it cheats in a round."""
        return number == self.first_round


@pytest.mark.parametrize("lies", [True, False])
async def test_its_column_is_judged_by_what_the_others_hold(
    lies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Its partner is convicted with a true gradient, which all voters compute, and leaves; so does the aggregator."""
    board, collect, draw = SharedCoalition(), settling._collect, rounds.draw_round_validators
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG)
    aggregates, covers, validates, *_ = sorted(hostile.peers)
    for peer in (aggregates, covers):
        hostile.swarm.conducts[hostile.peers.index(peer)] = Once(ROUND, 0, peer, board, 1.0)
        hostile.swarm._running.discard(hostile.peers.index(peer))

    async def call_lacking(services: Services, work: Work, dispute: Dispute) -> tuple[int, ...]:
        found = await collect(services, work, dispute)
        if not lies or services.me != aggregates or dispute.kind is not DisputeKind.COLUMN:
            return found
        return (find_wanted(work, dispute).index(covers),)

    def draw_coverer(*values: Any) -> tuple[Assignment, ...]:
        is_moved = board.get(f"moved-{ROUND}-0") and covers in values[3]
        return (Assignment(validates, covers),) if is_moved else draw(*values)

    hostile.swarm.network.delivery = lag
    monkeypatch.setattr(settling, "_collect", call_lacking)
    monkeypatch.setattr(rounds, "draw_round_validators", draw_coverer)
    outcome = await hostile.run()
    banned = {hostile.peers[who]: event.cause for who, event in outcome.departures(DepartureKind.BAN).items()}
    assert banned == {aggregates: Cause.WRONG_AGGREGATE, covers: Cause.FALSE_REPORT}
    assert not outcome.departures(DepartureKind.REMOVAL)
