"""Whoever crashes as it publishes its slice is waited for as long as its gradient takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, slow_down_gradients
from torch import Tensor

from btard.identity import PeerId
from btard.net import Loan, Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Opinion, Phase, Stage, Vote
from btard.rules.parts import Part
from btard.swarm import complaining, exhibits
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind, SliceHead
from btard.wire import decode

Clock = trio.testing.MockClock
CRASHES, CHEAT = 0, 3
CONFIG = {"genesis_size": 4, "rounds": 4, "validators": 0}


class WrongAggregate(Conduct):
    """One wrong aggregate, in round 3."""

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return another one."""
        return aggregate + torch.full_like(aggregate, 5.0) if round_number == 3 else aggregate


async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
    """Have nothing for anybody."""
    return b"", None


@pytest.mark.parametrize("phase", [Phase.PUBLISH, Phase.DISPUTE_PUBLISH], ids=["complaint", "column"])
@pytest.mark.parametrize("gradient_s", [8.0, 0.1], ids=["slow", "fast"])
async def test_whoever_crashed_as_it_published_stays(
    phase: Phase, gradient_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A false complaint, or a wrong aggregate of the cheat's own, has it publish; the cheat votes that it is silent."""
    slow_down_gradients(monkeypatch, gradient_s, 80.0)

    def change(who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if who == CHEAT and isinstance(payload, Vote):
            return Vote(tuple(Opinion((), (hostile.peers[CRASHES],), ()) for _ in payload.opinions))
        is_due = phase is Phase.PUBLISH and isinstance(payload, Aggregate) and stage == Stage(3, 0, Phase.AGGREGATE)
        if who == CHEAT and is_due:
            return replace(payload, root=b"", norm=0.0, missing=(hostile.peers[CRASHES],))
        return payload

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        if message.kind == Kind.SLICE and message.payload is not None and sender == hostile.peers[CRASHES]:
            published = decode(message.head, SliceHead).round == 3 and is_publishing
            return None if published and not killed else 0.5  # a transfer takes longer than the life of its sender
        return 0.1

    is_publishing = False

    def watch(who: int, event: Event) -> None:
        if who == CHEAT and isinstance(event, RunStarted | Resumed):
            hostile.hubs[hostile.peers[who]].serve[Kind.PULL_SLICE] = refuse

    conduct = Conduct() if phase is Phase.PUBLISH else WrongAggregate()
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={CHEAT: conduct}, watch=watch)
    for module in (complaining, exhibits):
        usual = module.send_whole

        def send(*args: Any, usual: Any = usual) -> None:
            nonlocal is_publishing
            is_publishing = True
            usual(*args)

        monkeypatch.setattr(module, "send_whole", send)
    alter_said(monkeypatch, hostile, change)
    hostile.swarm.network.delivery = deliver
    killed = kill_after(hostile.swarm, CRASHES, phase, 3, back_s=0.3)
    outcome = await hostile.run()
    assert killed
    assert not set(outcome.departures(DepartureKind.REMOVAL)) - outcome.byzantine
