"""Parts that their aggregators publish to one honest member only: all others have to get them from it."""

from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Halted, RunStarted
from btard.swarm.frames import Kind, PartHead
from btard.wire import decode, open_message

Clock = trio.testing.MockClock
ROUND, HOLDER, FAR = 2, 0, 1
"""Where the cheats cheat, to whom they publish, and who hears little of that one."""
LONG_S = 20.0
"""Longer than anybody asks for a part."""


class Swarm(HostileSwarm):
    """The last f members keep their parts in one round, and publish them to the first member only.

    What that one answers takes ``find_delay(receiver, size)`` seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, size: int, bandwidth: int) -> None:
        cheats = range(size // 2 + 1, size)
        config = {"genesis_size": size, "validators": 0, "min_bandwidth": bandwidth, "rounds": 3}
        super().__init__(
            monkeypatch, directory, config, conducts={index: Conduct() for index in cheats}, watch=self.close_mouths
        )
        self.cheats = [self.peers[index] for index in cheats]
        self.is_published, self.free_at = False, 0.0
        self.swarm.network.delivery = self.deliver

    def close_mouths(self, index: int, event: Event) -> None:
        """Let the cheats serve no parts."""

        async def serve_nothing(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            return b"", None

        if isinstance(event, RunStarted) and self.peers[index] in self.cheats:
            self.hubs[self.peers[index]].serve[Kind.PULL_PART] = serve_nothing

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Keep what the cheats keep."""
        if message.payload is None:
            if message.kind == Kind.MESSAGE:
                stage = open_message(self.config.run_id, message.head).slot.stage
                self.is_published |= (stage.round, stage.phase) == (ROUND, Phase.REVEAL)
            return 0.0
        if message.kind == Kind.PART and sender in self.cheats and receiver not in self.cheats:
            is_due = self.is_published and receiver == self.peers[HOLDER]
            return 0.0 if is_due or decode(message.head, PartHead).round != ROUND else None
        is_answer = self.is_published and message.kind not in {Kind.PART, Kind.SLICE}
        return self.find_delay(receiver, len(message.payload)) if is_answer and sender == self.peers[HOLDER] else 0.0

    def find_delay(self, receiver: PeerId, size: int) -> float:
        """Whoever is far gets no answer in time."""
        return LONG_S if receiver == self.peers[FAR] else 0.0

    async def run_soundly(self) -> None:
        """Run to the end; nobody honest left, stopped or halted, and all have one state."""
        outcome = await self.run()
        assert self.is_published
        assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
        gone = {**outcome.departures(DepartureKind.BAN), **outcome.departures(DepartureKind.REMOVAL)}
        assert set(gone) <= outcome.byzantine
        assert len(outcome.state_roots) == 1
        events = [event for peer in outcome.honest for event in peer.events]
        assert not [event for event in events if isinstance(event, Halted)]


class SlowSwarm(Swarm):
    """All that is served goes over one slow line, one answer after another, until its asker waits no more."""

    def find_delay(self, receiver: PeerId, size: int) -> float:
        """No faster than every member must be."""
        now = trio.current_time()
        self.free_at = max(self.free_at, now) + size / self.config.min_bandwidth
        return self.free_at - now


@pytest.mark.parametrize("size", [5, 7])
async def test_who_gets_no_answer_from_the_only_holder_gets_a_part_from_others(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """They did not have it yet when it was first asked for."""
    await Swarm(monkeypatch, tmp_path, size, 1_000_000).run_soundly()


async def test_the_only_holder_of_parts_is_given_the_time_to_serve_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Four parts for four members are almost two vectors: who asked for all at once would wait too short for some."""
    await SlowSwarm(monkeypatch, tmp_path, 9, 40).run_soundly()


class FarSwarm(Swarm):
    """Whatever is served to one member takes as long as a vector may take; it asks for one part after another."""

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Let answers come late to it, whoever gives them."""
        is_answer = message.payload is not None and message.kind not in {Kind.PART, Kind.SLICE}
        if self.is_published and is_answer and receiver == self.peers[FAR]:
            return 4 * self.config.elements / self.config.min_bandwidth
        return super().deliver(sender, receiver, message)


async def test_the_others_wait_for_who_gets_one_part_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """They know from the complaints how many there are."""
    await FarSwarm(monkeypatch, tmp_path, 9, 8).run_soundly()
