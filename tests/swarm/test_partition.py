"""Swarms cut in two: nothing is decided with fewer than a majority, and what was cut off comes back or is told."""

from pathlib import Path

import trio

from btard.errors import Removed
from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.audit import audit_ledger
from btard.swarm.events import Event, Recovered, RoundDone, Stranded

Clock = trio.testing.MockClock
HOP_S = 0.5


class CutSwarm:
    """Eight peers; after round 2 the first ``size`` of them hear nothing of the others until the cut is mended."""

    def __init__(self, directory: Path, size: int, rounds: int, mend_after: float) -> None:
        config = {"tau": 2.0, "delta": 20.0, "rounds": rounds, "genesis_size": 8, "validators": 0}
        self.swarm = SimulatedSwarm(config, LinearTask, directory, delivery=self.deliver, watch=self.watch)
        self.side = {identity.peer_id for identity in self.swarm.identities[:size]}
        self.directory, self.mend_after = directory, mend_after
        self.cut_at: float | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the two sides hear nothing of each other now."""
        return self.cut_at is not None and trio.current_time() < self.cut_at + self.mend_after

    def watch(self, index: int, event: Event) -> None:
        """Cut at the end of round 2."""
        if isinstance(event, RoundDone) and event.round == 2 and self.cut_at is None:
            self.cut_at = trio.current_time()

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Lose what crosses the cut."""
        return None if self.is_cut and (sender in self.side) != (receiver in self.side) else HOP_S

    async def run(self) -> Outcome:
        """Run to the end; every ledger must hold."""
        outcome = await self.swarm.run()
        for peer in outcome.peers:
            assert audit_ledger(self.directory / f"peer-{peer.index}").problems == ()
        return outcome


async def test_two_halves_wait_and_go_on_together(tmp_path: Path, autojump_clock: Clock) -> None:
    """Four of eight decide nothing; when they hear each other again, nobody has lost its place."""
    outcome = await CutSwarm(tmp_path, 4, 4, mend_after=60.0).run()
    assert [peer.error for peer in outcome.peers] == [None] * 8
    assert len(outcome.state_roots) == 1
    assert not outcome.departures(DepartureKind.REMOVAL)
    for peer in outcome.peers:
        halted = [event for event in peer.events if isinstance(event, Stranded)]
        assert len(halted) == 1
        assert "4 of 8" in halted[0].reason
        assert [event for event in peer.events if isinstance(event, Recovered)]


async def test_a_peer_that_waits_for_long_says_so_at_intervals(tmp_path: Path, autojump_clock: Clock) -> None:
    """Every ten minutes one line tells how long it has waited, whom it reaches, and what it waits for."""
    outcome = await CutSwarm(tmp_path, 4, 3, mend_after=1500.0).run()
    assert [peer.error for peer in outcome.peers] == [None] * 8
    for peer in outcome.peers:
        first, *later = [event.reason for event in peer.events if isinstance(event, Stranded)]
        assert "minutes" not in first
        assert ["waited 10 minutes" in later[0], "waited 20 minutes" in later[1]] == [True, True]
        assert len(later) == 2
        assert all("links to 7 of 7 other members" in line for line in later)
        assert all("went on without it the first one that it hears will say so" in line for line in later)


async def test_a_minority_waits_while_the_majority_goes_on_and_is_told(tmp_path: Path, autojump_clock: Clock) -> None:
    """Five of eight remove three and go on; the three decide nothing, and end as removed when the cut is mended."""
    outcome = await CutSwarm(tmp_path, 5, 12, mend_after=25.0).run()
    assert [peer.error for peer in outcome.peers[:5]] == [None] * 5
    assert len(outcome.state_roots) == 1
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {5, 6, 7}
    for peer in outcome.peers[5:]:
        assert isinstance(peer.error, Removed)
        assert len(peer.rounds) == 2
        assert any(isinstance(event, Stranded) for event in peer.events)


async def test_a_cut_that_is_mended_before_any_deadline_costs_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    """What was lost in half a second is pulled; nobody leaves."""
    outcome = await CutSwarm(tmp_path, 3, 4, mend_after=0.5).run()
    assert [peer.error for peer in outcome.peers] == [None] * 8
    assert len(outcome.state_roots) == 1
    assert not outcome.departures(DepartureKind.REMOVAL)
