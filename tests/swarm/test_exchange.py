"""What a recovery does to a computation in between."""

from types import SimpleNamespace

import pytest
import trio
from tests.rules.build import make_config, make_roster

from btard.rules.recovery import Decision
from btard.rules.seal import Seal
from btard.sim import LinearTask
from btard.swarm.board import Board
from btard.swarm.exchange import Exchange, NewAttempt
from btard.swarm.place import Place
from btard.swarm.state import State, Work, empty_part

ROSTER = make_roster(5)
ME, CHEAT = ROSTER.members[:2]


class Desk:
    """An exchange of one member, whose recovery comes to what a test says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.board, self.before = Board(), trio.Event()
        self._decision: Decision | None = None
        self.recovery = SimpleNamespace(has_decided=False, is_pending=False, marks=None, settled=self._settle)
        broadcast = SimpleNamespace(board=self.board, place=Place(), me=ME)
        self.exchange = Exchange(broadcast, self.recovery, SimpleNamespace(), 1.0, nursery.start_soon)  # type: ignore[arg-type]
        seal = Seal(bytes(32), 2, 0, bytes(32), bytes(32), b"", ROSTER.members, (), bytes(32), b"q" * 32, 5)
        state = State(3, 0, ROSTER, empty_part(), LinearTask().initial_optimizer(), seal, b"", b"")
        self.work = Work(make_config(), state, None)
        self.recovery.marks = self.work.marks
        self.exchange.follow(self.work)

    async def _settle(self) -> tuple[Decision, bytes]:
        assert self._decision is not None
        self.before.set()
        return self._decision, b""

    def decide(self, decision: Decision) -> None:
        """Let the recovery come to this."""
        self._decision, self.recovery.has_decided = decision, True
        self.board.call()


async def test_work_on_what_has_changed_ends_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """Of two pulls one is given up as the attempt ends; one begins in the same moment, with what is there no more."""

    async def begin_late() -> None:
        await desk.before.wait()
        raise AssertionError("the aggregates are those of no attempt")

    async def pull_both() -> None:
        async with trio.open_nursery() as pulls:
            pulls.start_soon(trio.sleep_forever)
            pulls.start_soon(begin_late)

    async with trio.open_nursery() as nursery:
        desk = Desk(nursery)
        nursery.start_soon(_decide_later, desk, Decision((CHEAT,), (), 3, ()))
        with pytest.raises(NewAttempt):
            await desk.exchange.attend(desk.work, pull_both)


async def _decide_later(desk: Desk, decision: Decision) -> None:
    await trio.sleep(1)
    desk.decide(decision)
