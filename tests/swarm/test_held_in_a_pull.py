"""A cheat that never answers keeps nobody in an attempt that the others have left."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Phase, Stage
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RunStarted
from btard.swarm.frames import Kind

SIZE, SHOWS_TWO, KEEPS, DEPRIVED = 7, 1, 5, 6
CHEATS = (SHOWS_TWO, 3, KEEPS)
OTHERS = [0, 2, 4]
STAGE = Stage(2, 0, Phase.AGGREGATE)


class Swarm(HostileSwarm):
    """All cheats complain about all; one publishes to all but one honest member, and never answers that one.

    As soon as that one asks, another cheat shows all others that it said two things.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        config = {"genesis_size": SIZE, "validators": 0, "rounds": 3, "min_bandwidth": 40, "chunk_size": 2}
        conducts = {index: Conduct() for index in CHEATS}
        super().__init__(monkeypatch, directory, config, conducts=conducts, watch=self.close_mouth)
        self.pair = self.peers[KEEPS], self.peers[DEPRIVED]
        self.asked_at, self.next_attempt_at = list[float](), list[float]()
        self.complained, self.broadcast = False, list[Broadcast]()
        self.swarm.network.delivery = self.deliver
        alter_said(monkeypatch, self, self.complain)
        self.note_words(monkeypatch)

    def note_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note whose board has what all say, and when the deprived one is in the next attempt."""
        begin = Broadcast.say

        def say(broadcast: Broadcast, stage: Stage, *said: object) -> object:
            if broadcast.me == self.peers[0]:
                self.broadcast[:] = [broadcast]
            if broadcast.me == self.peers[DEPRIVED] and stage == STAGE._replace(attempt=1):
                self.next_attempt_at.append(trio.current_time())
            return begin(broadcast, stage, *said)  # type: ignore[arg-type]

        monkeypatch.setattr(Broadcast, "say", say)

    def complain(self, index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Lack everything, once."""
        if index not in CHEATS or stage != STAGE or not isinstance(payload, Aggregate):
            return payload
        self.complained = True
        missing = tuple(sorted(peer for peer in self.peers if peer != self.peers[index]))
        return replace(payload, root=b"", norm=0.0, missing=missing)

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Lose what is published to the deprived one."""
        is_slice = message.kind == Kind.SLICE and message.payload is not None
        return None if self.complained and is_slice and (sender, receiver) == self.pair else 0.0

    def close_mouth(self, index: int, event: Event) -> None:
        """Let one cheat never answer the deprived one."""
        if index != KEEPS or not isinstance(event, RunStarted):
            return
        hub = self.hubs[self.peers[KEEPS]]
        serve = hub.serve[Kind.PULL_SLICE]

        async def serve_others(peer: PeerId, body: bytes) -> object:
            if peer == self.peers[DEPRIVED] and self.complained:
                self.complained = False
                self.asked_at.append(trio.current_time())
                self.show_two()
                await trio.sleep_forever()
            return await serve(peer, body)

        hub.serve[Kind.PULL_SLICE] = serve_others  # type: ignore[assignment]

    def show_two(self) -> None:
        """Have a cheat say its AGGREGATE in two ways."""
        first = self.broadcast[0].board.of(STAGE)[self.peers[SHOWS_TWO]]
        assert isinstance(first.payload, Aggregate)
        other = replace(first.payload, norm=1.0)
        self.tell(SHOWS_TWO, self.sign(SHOWS_TWO, first.roster, STAGE, other, first.previous), OTHERS)


async def test_who_asks_for_what_was_published_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It stays a member, and is in the next attempt before its question is answered."""
    swarm = Swarm(monkeypatch, tmp_path)
    outcome = await swarm.run()
    assert [peer.error for peer in outcome.honest] == [None] * 4
    assert not outcome.departures(DepartureKind.REMOVAL).keys() - set(outcome.byzantine)
    vector_s = 4 * swarm.config.elements / swarm.config.min_bandwidth
    assert swarm.next_attempt_at[0] - swarm.asked_at[0] < vector_s + 3 * swarm.config.delay_s
