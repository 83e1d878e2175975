"""Whoever is started again keeps its place, though cheats never answer it where it stands."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HasSaidMore, HostileSwarm, alter_said
from tests.swarm.restarts import kill_after

from btard.identity import PeerId
from btard.net import Hub, Message
from btard.net.address import Address
from btard.net.memory import MemoryLink, MemoryTransport
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Commit, Halt, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.swarm.exchange import NewAttempt
from btard.swarm.frames import Kind
from btard.swarm.rounds import Rounds

VICTIM, CHEAT, SIZE, ROUND = 0, 3, 5, 3
ATTEMPT = Stage(ROUND, 0, Phase.AGGREGATE), Stage(ROUND, 0, Phase.COMMIT)
SLOW_S, QUICK_S = 0.95, 0.1  # of Δ, a second: to the victim and from it, and all data; everything else
LINK_S, HALT_S = 1.9, 4.375  # after it is back, and after it was killed
Connect = Callable[[MemoryTransport, Address, PeerId | None], Awaitable[MemoryLink]]


class KeepsSilent(HasSaidMore):
    """Answers nobody who asks where it stands."""

    def __init__(self) -> None:
        self.asked = list[PeerId]()

    async def accompany(self, hub: Hub) -> None:
        """Note who asked."""

        async def keep_silent(peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            self.asked.append(peer)
            await trio.sleep_forever()

        while Kind.STANDING not in hub.serve:
            await trio.sleep(0.0625)
        hub.serve[Kind.STANDING] = keep_silent
        await self.act()

    async def act(self) -> None:
        """Do nothing more."""
        await trio.sleep_forever()


class Scene:
    """Five peers, two of them cheats that do not answer the victim where it stands. All its links are late."""

    late_links: Collection[int] = range(SIZE)

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_s: float) -> None:
        self.back_s = back_s
        settings = {"genesis_size": SIZE, "rounds": 5, "validators": 0}
        self.cheats = {index: self.make_cheat(index) for index in (CHEAT, CHEAT + 1)}
        self.hostile = HostileSwarm(monkeypatch, tmp_path, settings, conducts=self.cheats)
        self.victim, self.killed = self.hostile.peers[VICTIM], list[float]()
        self.hostile.swarm.network.delivery = self.deliver
        self.loses_data = False
        alter_said(monkeypatch, self.hostile, self.change)
        monkeypatch.setattr(MemoryTransport, "connect", self.hold_back(MemoryTransport.connect))

    def make_cheat(self, _index: int) -> KeepsSilent:
        """One that only keeps silent."""
        return KeepsSilent()

    def hold_back(self, connect: Connect) -> Connect:
        """Let the victim's links to these take until it hardly waits for them any more."""
        slow = {self.hostile.peers[index] for index in self.late_links}

        async def connect_late(transport: MemoryTransport, address: Address, peer: PeerId | None) -> MemoryLink:
            ends = {transport.peer_id, peer}
            if self.killed and self.victim in ends and ends & slow:
                await trio.sleep_until(self.killed[0] + self.back_s + LINK_S)
            return await connect(transport, address, peer)

        return connect_late

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Be as slow as an honest peer may be; what it has sent as it dies may be lost."""
        is_data = message.payload is not None
        is_slice = is_data and message.kind == Kind.SLICE and sender == self.victim
        if is_slice and self.loses_data and not self.killed:
            return None
        return SLOW_S if self.victim in {sender, receiver} else QUICK_S

    def change(self, _who: int, _stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Sign what one should."""
        return payload

    async def require_kept(self) -> None:
        """Run, and require that the victim was struck, and that nobody who is honest left."""
        outcome = await self.hostile.run()
        assert self.killed
        assert any(self.victim in cheat.asked for cheat in self.cheats.values())
        assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 2)
        assert not {who for kind in DepartureKind for who in outcome.departures(kind)} - {CHEAT, CHEAT + 1}


class FalselyAccused(Scene):
    """The victim publishes its slice once more, and dies with it on the way."""

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Say that the victim's slice never came."""
        if (who, stage) == (CHEAT, ATTEMPT[0]) and isinstance(payload, Aggregate):
            self.loses_data = True
            return replace(payload, root=b"", norm=0.0, missing=(self.victim,))
        return payload


class WithoutOne(Scene):
    """The cheat leaves for another state: the parts are cut anew, and the victim dies in that moment."""

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Have another state."""
        is_due = (who, stage) == (CHEAT, ATTEMPT[1]) and isinstance(payload, Commit)
        return replace(payload, state=bytes(32)) if is_due else payload


@pytest.mark.parametrize("back_s", [0.3, 1.9])
async def test_publisher_that_is_held_up_keeps_its_place(
    back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It publishes late, and its publication is waited for."""
    scene = FalselyAccused(tmp_path, monkeypatch, back_s)
    scene.killed = kill_after(scene.hostile.swarm, VICTIM, Phase.PUBLISH, ROUND, back_s=back_s)
    await scene.require_kept()


@pytest.mark.parametrize("back_s", [0.3, 1.9])
async def test_contributor_that_is_held_up_keeps_its_place(
    back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It knows of the new attempt as soon as it has asked: its slices of the new parts are waited for."""
    scene, begin, begun = WithoutOne(tmp_path, monkeypatch, back_s), Rounds._begin_attempt, list[float]()

    def begin_and_die(rounds: Rounds, change: NewAttempt) -> None:
        begin(rounds, change)
        if rounds._services.me != scene.victim:
            return
        begun.append(trio.current_time())
        if not scene.killed:
            scene.killed.append(trio.current_time())
            scene.hostile.swarm.crash(VICTIM, back_s)

    monkeypatch.setattr(Rounds, "_begin_attempt", begin_and_die)
    await scene.require_kept()
    assert begun[1] - scene.killed[0] - back_s < LINK_S + 2 * SLOW_S + 0.25  # asked within Δ/4


class Halts(KeepsSilent):
    """Halts as soon as an honest member could."""

    def __init__(self, killed: Callable[[], list[float]], halt: Callable[[], None]) -> None:
        super().__init__()
        self.killed, self.halt = killed, halt

    async def act(self) -> None:
        """Wait until the victim was killed, and 4 3/8 Δ."""
        while not self.killed():
            await trio.sleep(0.125)
        await trio.sleep_until(self.killed()[0] + HALT_S)
        self.halt()
        await trio.sleep_forever()


class Halted(Scene):
    """Cheats halt over the victim as soon as the deadline of a phase has passed that waits for a message alone.

    Its links to honest members are quick.
    """

    late_links = (CHEAT, CHEAT + 1)

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_s: float, missed: Stage) -> None:
        super().__init__(tmp_path, monkeypatch, back_s)
        self.missed = missed

    def make_cheat(self, index: int) -> KeepsSilent:
        """One that halts besides."""
        return Halts(lambda: self.killed, partial(self.halt, index))

    def halt(self, index: int) -> None:
        """Halt over the victim."""
        roster, stage = Roster.of(self.hostile.peers), self.missed
        position = Position(stage.round, stage.attempt, int(stage.phase), stage.serial)
        content = Halt(position, (self.victim,), ())
        self.hostile.tell(index, self.hostile.sign(index, roster.digest, Stage(0, 0, Phase.HALT, 0), content))


@pytest.mark.parametrize(
    ("said", "missed"),
    [
        (Phase.CHECK, Stage(ROUND, 0, Phase.CONFIRM)),
        (Phase.CONFIRM, Stage(ROUND + 1, 0, Phase.COMMIT)),
    ],
    ids=["CONFIRM", "COMMIT"],
)
@pytest.mark.parametrize("back_s", [0.3, 1.9])
async def test_whoever_is_held_up_is_back_before_a_recovery_of_cheats_has_ended(
    back_s: float,
    said: Phase,
    missed: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It supplies what it has not said in time, in the view that is waited for. Gradients take no time to speak of."""
    monkeypatch.setattr("btard.swarm.services.COMPUTE_FACTOR", 0)
    scene = Halted(tmp_path, monkeypatch, back_s, missed)
    scene.killed = kill_after(scene.hostile.swarm, VICTIM, said, ROUND, back_s=back_s)
    await scene.require_kept()
