"""Whoever is started again keeps its place, though cheats keep it asking where it stands for as long as they can."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Commit, Phase, Stage
from btard.rules.seal import Seal
from btard.swarm.conduct import Conduct
from btard.swarm.exchange import NewAttempt
from btard.swarm.frames import Kind
from btard.swarm.rounds import Rounds
from btard.swarm.standing import Standing

VICTIM, CHEAT, SIZE, ROUND = 0, 3, 5, 3
ATTEMPT = Stage(ROUND, 0, Phase.AGGREGATE), Stage(ROUND, 0, Phase.COMMIT)
SLOW_S, QUICK_S = 0.95, 0.1  # of Δ, a second: to the victim, and its data; everything else


class Scene:
    """Five peers, two of them cheats by whose doing the victim asks as long as it may after a restart."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {"genesis_size": SIZE, "rounds": 5, "validators": 0}
        conducts = {index: Conduct() for index in (CHEAT, CHEAT + 1)}
        self.hostile = HostileSwarm(monkeypatch, tmp_path, settings, conducts=conducts)
        self.victim, self.killed, self.asked = self.hostile.peers[VICTIM], list[float](), 0.0
        self.hostile.swarm.network.delivery = self.deliver
        self.loses_data = False
        alter_said(monkeypatch, self.hostile, self.change)
        monkeypatch.setattr(Standing, "ask", self._make_ask())

    def _make_ask(self) -> Callable[..., Awaitable[None]]:
        ask = Standing.ask

        async def ask_long(standing: Standing, base: Seal, timeout_s: float, link_s: float = 0.0) -> None:
            """Take as long as links may be refused and answers may be late."""
            begun = trio.current_time()
            await ask(standing, base, timeout_s, link_s)
            if link_s and standing._broadcast.me == self.victim:
                await trio.sleep_until(begun + timeout_s + link_s)
                self.asked = trio.current_time()

        return ask_long

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        """Be as slow as an honest peer may be; what it has sent as it dies may be lost."""
        is_data = sender == self.victim and message.payload is not None
        if is_data and message.kind == Kind.SLICE and self.loses_data and not self.killed:
            return None
        return SLOW_S if receiver == self.victim or is_data else QUICK_S

    def change(self, _who: int, _stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Sign what one should."""
        return payload

    async def require_kept(self) -> None:
        """Run, and require that the victim was struck, and that nobody who is honest left."""
        outcome = await self.hostile.run()
        assert self.killed
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


@pytest.mark.parametrize("back_s", [0.3, 1.5])
async def test_publisher_that_is_held_up_keeps_its_place(
    back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It publishes late, and its publication is waited for."""
    scene = FalselyAccused(tmp_path, monkeypatch)
    scene.killed = kill_after(scene.hostile.swarm, VICTIM, Phase.PUBLISH, ROUND, back_s=back_s)
    await scene.require_kept()


@pytest.mark.parametrize("back_s", [0.3, 1.5])
async def test_contributor_that_is_held_up_keeps_its_place(
    back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It knows of the new attempt as soon as it has asked: its slices of the new parts are waited for."""
    scene, begin, begun = WithoutOne(tmp_path, monkeypatch), Rounds._begin_attempt, list[float]()

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
    assert begun[1] - scene.asked < QUICK_S
