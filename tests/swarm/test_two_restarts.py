"""Two honest members that are started again, one after the other, in an attempt that a cheat's HALT has interrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HasSaidMore, HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, read_said

from btard.identity import PeerId
from btard.net import Hub, Loan, Message
from btard.net.address import Address
from btard.net.memory import MemoryLink, MemoryTransport
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Attest, Halt, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.swarm.events import Event, Halted, Recovered
from btard.swarm.frames import Kind

SECOND, FIRST, THIRD, CHEAT, SIZE, ROUND = 0, 1, 2, 3, 5, 3
SLOW_S, QUICK_S, HALT_S = 0.95, 0.1, 0.5  # of Δ, a second: to the second and from it; everything else; after a COMMIT


class Scene:
    """The first comes back, the swarm recovers, a cheat complains about the second, which dies as it publishes."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_s: float) -> None:
        settings = {"genesis_size": SIZE, "rounds": 5, "validators": 0}
        cheats = {index: HasSaidMore() for index in (CHEAT, CHEAT + 1)}
        self.hostile = HostileSwarm(monkeypatch, tmp_path, settings, conducts=cheats, watch=self.watch)
        self.swarm, self.second = self.hostile.swarm, self.hostile.peers[SECOND]
        self.swarm.network.delivery = self.deliver
        self.is_publishing, self.recovered_at, self.held = False, 0.0, list[tuple[bool, ...]]()
        self.missed = set[PeerId]()
        alter_said(monkeypatch, self.hostile, self.change)
        self.first_died = kill_after(self.swarm, FIRST, Phase.COMMIT, ROUND, back_s=0.3)
        self.second_died = kill_after(self.swarm, SECOND, Phase.PUBLISH, ROUND, back_s=back_s)

    def watch(self, who: int, event: Event) -> None:
        """Note when the first has come through the recovery, and over whom members halt."""
        if who == FIRST and isinstance(event, Recovered) and not self.recovered_at:
            self.recovered_at = trio.current_time()
        if isinstance(event, Halted):
            self.missed.update(event.missing)

    def deliver(self, sender: bytes, receiver: bytes, message: Message) -> float | None:
        """Lose what the second publishes as it dies; and be as slow to it as an honest peer may be."""
        is_slice = message.payload is not None and message.kind == Kind.SLICE
        if is_slice and sender == self.second and self.is_publishing and not self.second_died:
            return None
        return SLOW_S if self.second in {sender, receiver} else QUICK_S

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Complain about the second; cheats deny that it published."""
        is_due = (stage.round, stage.attempt) == (ROUND, 0)
        if who == CHEAT and is_due and isinstance(payload, Aggregate):
            self.is_publishing = True
            return replace(payload, root=b"", norm=0.0, missing=(self.second,))
        if who >= CHEAT and isinstance(payload, Attest):
            return replace(payload, held=(False,) * len(payload.held))
        if who == FIRST and isinstance(payload, Attest):
            self.held.append(payload.held)
        return payload

    async def halt(self) -> None:
        """Let a cheat halt over nothing, when the first is back."""
        while not self.first_died:
            await trio.sleep(0.0625)
        await trio.sleep(HALT_S)
        content = Halt(Position(ROUND, 0, int(Phase.COMMIT), 0), (self.hostile.peers[THIRD],), ())
        roster = Roster.of(self.hostile.peers).digest
        self.hostile.tell(CHEAT, self.hostile.sign(CHEAT, roster, Stage(0, 0, Phase.HALT, 0), content))


async def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_s: float) -> tuple[Scene, set[int]]:
    """Run, and return who left, cheats apart."""
    scene = Scene(tmp_path, monkeypatch, back_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.halt)
        outcome = await scene.hostile.run()
    assert 0 < scene.recovered_at < scene.second_died[0]
    left = {who for kind in DepartureKind for who in outcome.departures(kind)} - {CHEAT, CHEAT + 1}
    assert {peer.index for peer in outcome.honest if peer.error is not None} == left
    return scene, left


@pytest.mark.parametrize("back_s", [0.3, 1.9])
async def test_whoever_was_back_before_waits_for_the_next_one(
    back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """All had waited for the first one's AGGREGATE since: it is behind no more, and attests what the second sends."""
    scene, left = await play(tmp_path, monkeypatch, back_s)
    assert scene.held == [(True,)]
    assert not left


async def test_whoever_was_back_before_waits_no_longer_than_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The second comes back far too late: nobody is excused any more, and nobody waits for a power cut to end."""
    scene, left = await play(tmp_path, monkeypatch, 90.0)
    assert scene.held == [(False,)]
    assert left == {SECOND}
    assert scene.missed == {scene.second}


class AnswersNobody(HasSaidMore):
    """Answers no question about a stage until it may."""

    def __init__(self, may_answer: Callable[[], bool]) -> None:
        self.may_answer = may_answer

    async def accompany(self, hub: Hub) -> None:
        """Stand before who answers, once that is there."""
        while Kind.PULL_STAGE not in hub.serve:
            await trio.sleep(0.0625)
        answer = hub.serve[Kind.PULL_STAGE]

        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            if not self.may_answer():
                await trio.sleep_forever()
            return await answer(peer, body)

        hub.serve[Kind.PULL_STAGE] = serve
        await trio.sleep_forever()


class HeldInCommit:
    """Of three, one is back in COMMIT long before the cheat says its own, and the other dies as that is complete."""

    DIES, BACK, CHEATS = 0, 1, 2
    HELD_S, LINK_S, BACK_S = 4.5, 1.9, 1.9

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {"genesis_size": 3, "min_roster": 2, "rounds": 5, "validators": 0}
        self.hostile = HostileSwarm(
            monkeypatch, tmp_path, settings, conducts={self.CHEATS: AnswersNobody(self.may_answer)}
        )
        self.swarm, self.peers = self.hostile.swarm, self.hostile.peers
        self.swarm.network.delivery = self.deliver
        self.kept, self.died, self.is_said = list[bytes](), list[float](), False
        alter_said(monkeypatch, self.hostile, self.change)
        self.back_died = kill_after(self.swarm, self.BACK, Phase.COMMIT, ROUND, back_s=0.3)
        connect = MemoryTransport.connect

        async def connect_late(transport: MemoryTransport, address: Address, peer: PeerId | None) -> MemoryLink:
            if self.died and self.peers[self.DIES] in {transport.peer_id, peer}:
                await trio.sleep_until(self.died[0] + self.BACK_S + self.LINK_S)
            return await connect(transport, address, peer)

        monkeypatch.setattr(MemoryTransport, "connect", connect_late)

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Let the cheat complain about whoever dies."""
        if (who, stage.round, stage.attempt) == (self.CHEATS, ROUND, 0) and isinstance(payload, Aggregate):
            return replace(payload, root=b"", norm=0.0, missing=(self.peers[self.DIES],))
        return payload

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Keep the cheat's COMMIT back; be slow to whoever has died, and from it."""
        said = read_said(self.swarm, message) if sender == self.peers[self.CHEATS] else None
        is_commit = said is not None and said.slot.stage == Stage(ROUND, 0, Phase.COMMIT) and said.sender == sender
        if is_commit and not self.is_said:
            self.kept[:] = [message.head]
            return None
        return SLOW_S if self.died and self.peers[self.DIES] in {sender, receiver} else QUICK_S

    def may_answer(self) -> bool:
        """Whether the cheat answers: not while it holds its COMMIT back."""
        return self.is_said or not self.back_died

    async def act(self) -> None:
        """Halt over nothing, say COMMIT at last, and strike."""
        while not self.back_died:
            await trio.sleep(0.0625)
        await trio.sleep(0.3)
        roster = Roster.of(self.peers).digest
        content = Halt(Position(ROUND, 0, int(Phase.COMMIT), 0), (self.peers[self.DIES],), ())
        halt = self.hostile.sign(self.CHEATS, roster, Stage(0, 0, Phase.HALT, 0), content)
        self.hostile.tell(self.CHEATS, halt)
        await trio.sleep_until(self.back_died[0] + self.HELD_S)
        self.is_said = True
        self.hostile.tell(self.CHEATS, self.kept[0])
        await trio.sleep(QUICK_S + 0.05)
        self.died.append(trio.current_time())
        self.swarm.crash(self.DIES, self.BACK_S)


async def test_whoever_waited_with_all_others_is_not_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It has said nothing new since it is back, but has come to AGGREGATE with all: it waits for who dies then."""
    scene = HeldInCommit(tmp_path, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.act)
        outcome = await scene.hostile.run()
    assert scene.died
    assert [peer.error for peer in outcome.honest] == [None, None]
