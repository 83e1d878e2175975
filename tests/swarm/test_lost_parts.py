"""All honest members lose their power after REVEAL; one aggregate is left with a cheat, which serves it to nobody."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.errors import Undecided
from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import Cause
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.sim.power import PowerLoss
from btard.swarm.audit import audit_ledger
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.updates import Updates
from btard.wire import open_message

Clock = trio.testing.MockClock
SIZE, CHEAT = 4, 3
REVEAL, CHECK = Stage(2, 0, Phase.REVEAL), Stage(2, 0, Phase.CHECK)
DARK_S = 5.0


class Swarm(HostileSwarm):
    """One member has its power, and keeps its part; it may keep quiet as well when the others do not go on."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, directory: Path, *, is_quiet: bool, last: Stage = REVEAL
    ) -> None:
        config = {"genesis_size": SIZE, "validators": 0, "rounds": 3}
        super().__init__(monkeypatch, directory, config, conducts={CHEAT: Conduct()}, watch=self.close_mouth)
        self._is_quiet, self._keeps = is_quiet, False
        self._revealed, self._dark = set[int](), set[int]()
        self.swarm.network.delivery = self.deliver
        self.swarm.before_restart = self._dark.discard
        self.cut_after(monkeypatch, last)

    def cut_after(self, monkeypatch: pytest.MonkeyPatch, last: Stage) -> None:
        """Cut the power once all have said ``last``, in which nothing is missing."""
        begin = Broadcast.say

        def say(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
            index = self.peers.index(broadcast.me)
            if index in self._dark:
                raise PowerLoss
            message = begin(broadcast, stage, *args)
            if stage == last and len(self._revealed) < SIZE:
                self._revealed.add(index)
                if len(self._revealed) == SIZE:
                    self.cut()
            return message

        monkeypatch.setattr(Broadcast, "say", say)

    def cut(self) -> None:
        """Let all but one lose their power."""
        self._keeps = True
        self._dark.update(range(CHEAT))
        for index in range(CHEAT):
            self.swarm.crash(index, DARK_S)

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Lose what the cheat would have to send, and its HALTs."""
        if sender != self.peers[CHEAT] or not self._keeps:
            return 0.0
        is_message = self._is_quiet and message.kind == Kind.MESSAGE and message.payload is None
        is_halt = is_message and open_message(self.config.run_id, message.head).slot.stage.phase is Phase.HALT
        return None if is_halt or message.kind == Kind.PART else 0.0

    def close_mouth(self, index: int, event: Event) -> None:
        """Let the cheat answer with nothing."""
        if index != CHEAT or not isinstance(event, RunStarted):
            return
        hub = self.hubs[self.peers[CHEAT]]
        serve = hub.serve[Kind.PULL_PART]

        async def serve_or_not(peer: PeerId, body: bytes) -> Any:
            return (b"", None) if self._keeps else await serve(peer, body)

        hub.serve[Kind.PULL_PART] = serve_or_not


async def test_whoever_keeps_a_part_that_all_others_have_lost_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It halts over all who cannot go on, and they go on without it."""
    outcome = await Swarm(monkeypatch, tmp_path, is_quiet=False).run()
    assert [peer.error for peer in outcome.honest] == [None] * CHEAT
    assert len(outcome.state_roots) == 1


async def test_whoever_keeps_it_and_says_nothing_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """All others complain in CHECK; nobody attests, and they go on without it."""
    swarm = Swarm(monkeypatch, tmp_path, is_quiet=True)
    outcome = await swarm.run()
    assert [peer.error for peer in outcome.honest] == [None] * CHEAT
    assert len(outcome.state_roots) == 1
    assert {(item.peer, item.cause) for item in outcome.honest[0].departures} == {
        (swarm.peers[CHEAT], Cause.WITHHOLDING)
    }
    assert [audit_ledger(tmp_path / f"peer-{peer.index}").problems for peer in outcome.honest] == [()] * CHEAT


async def test_a_part_that_nobody_serves_for_a_day_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Whoever said that it had all, and whose disk has lost it, ends with a sentence; the day is a minute here."""
    monkeypatch.setattr("btard.swarm.aggregation.PATIENCE_S", 60.0)
    load = Updates.load
    monkeypatch.setattr(Updates, "load", lambda self, number, size: None if number == 2 else load(self, number, size))
    outcome = await Swarm(monkeypatch, tmp_path, is_quiet=True, last=CHECK).run()
    for peer in outcome.honest:
        assert isinstance(peer.error, Undecided)
        assert "nobody served part" in str(peer.error)
