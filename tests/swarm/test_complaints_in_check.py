"""Nobody waits for ever for an aggregate that a restart lost: CHECK complains, and what it says is there is on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, read_said

from btard.identity import PeerId
from btard.net import Loan, Message
from btard.rules.messages import AnyPayload, Attest, Phase, Reveal, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RoundDone, RunStarted
from btard.swarm.frames import Kind

Clock = trio.testing.MockClock
LONG_S = 600.0


class NeverHalts(Conduct):
    """Waits, whoever is late."""

    def says(self, stage: Stage) -> bool:
        return stage.phase is not Phase.HALT


def refuse_parts(
    hostile: HostileSwarm, cheats: tuple[int, ...], who: int, event: Event, favours: Callable[[PeerId], bool]
) -> None:
    """The cheats serve no aggregate; but one of them does to one member, when that has waited for a while."""
    if who not in cheats or not isinstance(event, RunStarted | Resumed):
        return
    serve = hostile.hubs[hostile.peers[who]].serve
    usual = serve[Kind.PULL_PART]

    async def answer(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        if who != cheats[0] or not favours(peer):
            return b"", None
        await trio.sleep(1.5)
        return await usual(peer, body)

    serve[Kind.PULL_PART] = answer


def count_rounds(hostile: HostileSwarm, honest: tuple[int, ...]) -> list[int]:
    """The last rounds that honest members have finished."""
    found = [[e.round for e in hostile.swarm.outcomes[who].events if isinstance(e, RoundDone)] for who in honest]
    return [max(rounds, default=0) for rounds in found]


@pytest.mark.parametrize("phase", [Phase.REVEAL, Phase.CHECK], ids=str)
@pytest.mark.parametrize("keeps", [True, False], ids=["cheat-keeps-its-part", "cheat-is-honest"])
async def test_a_swarm_goes_on_after_a_power_cut_past_gather(
    keeps: bool, phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """One cheat of four had given its aggregate to all; when all have lost their power, it gives it to nobody again."""
    cheat, honest, killed = 3, (0, 1, 2), list[float]()

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        is_part = message.kind == Kind.PART and message.payload is not None
        if keeps and killed and is_part and sender == hostile.peers[cheat]:
            return None
        said = read_said(hostile.swarm, message)
        return 0.9 if said and said.slot.stage.phase is phase and sender == hostile.peers[cheat] else 0.1

    def cut(sender: bytes, receiver: bytes, message: Message, now: float) -> None:
        before(sender, receiver, message, now)
        said = None if killed else read_said(hostile.swarm, message)
        if said and said.slot.stage.phase is phase and said.slot.stage.round == 2:
            killed.append(now)
            for index in honest:
                hostile.swarm.crash(index, 1.0)

    def watch(who: int, event: Event) -> None:
        if keeps:
            refuse_parts(hostile, (cheat,), who, event, lambda peer: False)

    config = {"genesis_size": 4, "rounds": 4, "validators": 0}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={cheat: NeverHalts()}, watch=watch)
    before, hostile.swarm.network.on_arrival = hostile.swarm.network.on_arrival, cut
    hostile.swarm.network.delivery = deliver
    with trio.move_on_after(LONG_S):
        await hostile.run()
    assert killed
    assert count_rounds(hostile, honest) == [4, 4, 4]
    left_in = [item.round for who in honest for item in hostile.swarm.outcomes[who].departures]
    assert left_in == ([2 if phase is Phase.REVEAL else 3] * 3 if keeps else []), "what was on disk nobody had to give"


@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "no-crash"])
async def test_a_swarm_goes_on_when_the_one_honest_holder_of_a_part_is_started_again(
    crashes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """X gives its aggregate to A alone, and both cheats attest to it: A is started again before it was asked."""
    a, x, y, honest = 0, 3, 4, (0, 1, 2)
    killed: list[float] = []

    def change(who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if who in (x, y) and isinstance(payload, Attest):
            return Attest(tuple(True for _ in payload.held))
        if who == y and isinstance(payload, Reveal):
            return Reveal(payload.nonce, ())
        return payload

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        is_part = message.kind == Kind.PART and message.payload is not None
        if is_part and sender == hostile.peers[x] and min(count_rounds(hostile, honest)) >= 1:
            return None
        said = read_said(hostile.swarm, message)
        return 0.9 if said and said.slot.stage.phase is Phase.ATTEST and sender == hostile.peers[x] else 0.1

    def watch(who: int, event: Event) -> None:
        refuse_parts(hostile, (x, y), who, event, lambda peer: peer == hostile.peers[a] and not killed)

    config = {"genesis_size": 5, "rounds": 4, "validators": 0}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={x: NeverHalts(), y: NeverHalts()}, watch=watch)
    alter_said(monkeypatch, hostile, change)
    hostile.swarm.network.delivery = deliver
    if crashes:
        killed = kill_after(hostile.swarm, a, Phase.ATTEST, 2, back_s=0.3)
    with trio.move_on_after(LONG_S):
        await hostile.run()
    assert bool(killed) == crashes
    assert count_rounds(hostile, honest) == [4, 4, 4]
    gone = {item.peer for who in honest for item in hostile.swarm.outcomes[who].departures}
    assert gone <= {hostile.peers[x], hostile.peers[y]}
