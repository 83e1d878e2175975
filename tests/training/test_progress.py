"""The reporter: order, and one state at a time."""

from dataclasses import dataclass

import pytest
import trio

from btard.identity import PeerId
from btard.swarm.events import GradientOverflow, RoundDone
from btard.training import Evaluation, Progress
from btard.training.progress import Reporter


@dataclass(frozen=True)
class FakeSeal:
    state: bytes = b"root"


@dataclass(frozen=True)
class FakeState:
    round: int
    seal: FakeSeal = FakeSeal()


def done(number: int) -> RoundDone:
    """A finished round."""
    return RoundDone(number, 1, 0.1, (PeerId(bytes(32)),), (), FakeState(number + 1))


class Bench:
    """A reporter whose attention takes a second, and what it delivered."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.attended: list[int] = []
        self.reporter = Reporter(self.attend, lambda number: number % 2 == 0, self.told.append)

    async def attend(self, state: FakeState) -> Evaluation:
        """Take a second."""
        await trio.sleep(1)
        self.attended.append(state.round - 1)
        return Evaluation(float(state.round), None)

    @property
    def evaluated(self) -> list[tuple[int, bool]]:
        """Which rounds were delivered, and whether with an evaluation."""
        return [(event.round, event.evaluation is not None) for event in self.told if isinstance(event, Progress)]


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    """A reporter that runs."""
    bench = Bench()
    nursery.start_soon(bench.reporter.run)
    return bench


async def test_order_is_kept(bench, autojump_clock):
    """What comes while a round is attended to is delivered after it."""
    overflow = GradientOverflow(3, 1)
    bench.reporter.tell_round(done(2))
    bench.reporter.tell(overflow)
    bench.reporter.tell_round(done(3))
    await bench.reporter.finish()
    assert [getattr(event, "round", None) for event in bench.told] == [2, 3, 3]
    assert bench.told[1] is overflow
    assert bench.evaluated == [(2, True), (3, False)]


async def test_one_state_waits_at_most(bench, autojump_clock):
    """Rounds that fall due while one is attended to are reported without: states do not pile up."""
    for number in range(1, 7):
        bench.reporter.tell_round(done(number))
    await bench.reporter.finish()
    bench.reporter.tell_round(done(8))
    await bench.reporter.finish()
    assert bench.attended == [2, 8]
    assert bench.evaluated == [(1, False), (2, True), (3, False), (4, False), (5, False), (6, False), (8, True)]


async def test_flush_delivers_what_is_left():
    """At the end of a run that broke off, everything is told, unattended."""
    bench = Bench()
    bench.reporter.tell_round(done(2))
    bench.reporter.tell_round(done(3))
    bench.reporter.flush()
    assert bench.evaluated == [(2, False), (3, False)]
    assert bench.attended == []
