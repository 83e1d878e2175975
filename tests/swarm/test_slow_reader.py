"""A member that takes another's vectors more slowly than it offers them makes it keep those of two rounds, no more."""

from contextlib import suppress
from pathlib import Path
from weakref import ref

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.errors import NetworkError
from btard.identity import PeerId
from btard.net.memory import MemoryLink
from btard.net.session import Session
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import Kind, PartHead
from btard.wire import encode

Clock = trio.testing.MockClock
VICTIM, SLOW = 0, 1
ROUNDS, SIZE = 12, 4


class SlowReader:
    """A swarm in which one link never ends a vector that one member sends another.

    That one has the bytes all the same, from an accomplice, so nobody has to complain; and it asks for parts as well.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        config = {"genesis_size": SIZE, "rounds": ROUNDS, "validators": 1, "min_bandwidth": 10}
        conducts = {SLOW: Conduct()}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        self.hostile.swarm.network.delivery = lambda *message: 0.02
        self.pair = self.hostile.peers[VICTIM], self.hostile.peers[SLOW]
        self.round, self.asked = 1, 0
        self.lent: list[tuple[int, ref[object]]] = []
        self.kept: dict[int, set[int]] = {}
        self.slow_down(monkeypatch)

    def slow_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have what goes from the victim to the slow one wait for ever."""
        send, send_bulk, send_bulk_now = MemoryLink.send, Session.send_bulk, Session.send_bulk_now

        def is_slow(sender: PeerId, receiver: PeerId) -> bool:
            return (sender, receiver) == self.pair

        async def drip(self: MemoryLink, kind: int, head: bytes, payload: memoryview | None = None) -> None:
            if payload is not None and is_slow(self._me, self.peer):
                await trio.sleep_forever()
            await send(self, kind, head, payload)

        async def note(session: Session, kind: int, head: bytes, payload: memoryview) -> None:
            if is_slow(session._me, session.peer):
                self.lent.append((self.round, ref(payload.obj)))
                assert session._kept is not None
                session._kept.link.send_now(kind, head, payload)
            await send_bulk(session, kind, head, payload)

        def wait(session: Session, kind: int, head: bytes, payload: memoryview) -> bool:
            return not is_slow(session._me, session.peer) and send_bulk_now(session, kind, head, payload)

        monkeypatch.setattr(MemoryLink, "send", drip)
        monkeypatch.setattr(Session, "send_bulk", note)
        monkeypatch.setattr(Session, "send_bulk_now", wait)

    def watch(self, index: int, event: Event) -> None:
        """Note of which rounds vectors are there whenever the victim ends one; the slow one asks for its parts."""
        if isinstance(event, RoundDone) and index == VICTIM:
            self.kept[event.round] = {number for number, held in self.lent if held() is not None}
            self.round = event.round + 1
        if isinstance(event, RoundDone) and index == SLOW:
            for part in range(SIZE):
                trio.lowlevel.spawn_system_task(self.ask, PartHead(event.round, 0, part))

    async def ask(self, head: PartHead) -> None:
        """Ask for a part of the round that is over."""
        victim, slow = self.pair
        with suppress(NetworkError):
            answer = await self.hostile.hubs[slow].request(
                victim, Kind.PULL_PART, encode(head), timeout_s=9, sink=lambda _, size: memoryview(bytearray(size))
            )
            self.asked += answer.payload is not None


async def test_a_slow_reader_keeps_two_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """The rounds go on, nobody leaves, and what is older than the round before is free, asked for or offered."""
    swarm = SlowReader(monkeypatch, tmp_path)
    outcome = await swarm.hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * SIZE
    assert not any(peer.departures for peer in outcome.peers)
    assert set(swarm.kept) == set(range(1, ROUNDS + 1))
    assert all(number in rounds for number, rounds in swarm.kept.items())
    assert [min(rounds) for rounds in swarm.kept.values()] == [max(1, number - 1) for number in swarm.kept]
    assert swarm.asked > ROUNDS
