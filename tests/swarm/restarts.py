"""Killing a simulated peer right after it has said something, and starting it again."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from btard.attacks.complaining import HaltAlways
from btard.errors import RemoteProtocolError
from btard.net import Message
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.sim import SimulatedSwarm
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind
from btard.wire import open_message


class HaltOnce(HaltAlways):
    """Halts once over an innocent member: from then on recoveries of the attempt excuse nobody for being behind."""

    def act_in(self, stage: Stage) -> bool:
        return stage.round == self.first_round


def lag(_sender: bytes, _receiver: bytes, _message: Message) -> float:
    """A tenth of a second for everything."""
    return 0.1


def slow_down_gradients(monkeypatch: pytest.MonkeyPatch, gradient_s: float, bound_s: float) -> None:
    """Let a gradient take a while, of this round or the one before, and nothing else; all wait ``bound_s`` for one."""

    class SlowGradients(InlineCompute):
        takes_time = True

        async def run(self, work: Callable[[], Any]) -> Any:
            if "gradient" in getattr(work, "__qualname__", ""):
                await trio.sleep(gradient_s)
            return await super().run(work)

    monkeypatch.setattr("btard.sim.swarm.InlineCompute", SlowGradients)
    monkeypatch.setattr("btard.swarm.services.COMPUTE_FACTOR", int(bound_s / 0.1))


def read_said(swarm: SimulatedSwarm, message: Message) -> SignedMessage | None:
    """What a member says by a message on the wire; None if it is something else."""
    if message.kind != Kind.MESSAGE or message.payload is not None:
        return None
    try:
        return open_message(swarm.config.run_id, message.head)
    except RemoteProtocolError:
        return None


def kill_after(
    swarm: SimulatedSwarm,
    victim: int,
    phase: Phase,
    first_round: int,
    back_s: float,
    as_it_dies: Callable[[], None] = lambda: None,
    first_attempt: int = 0,
) -> list[float]:
    """Kill a peer when the first one hears it say a phase of ``first_round`` or later; the list then holds the time.

    Several may be killed, each at its own place.
    """
    killed, before = list[float](), swarm.network.on_arrival

    def kill(sender: bytes, receiver: bytes, message: Message, now: float) -> None:
        before(sender, receiver, message, now)
        said = None if killed else read_said(swarm, message)
        if said is None:
            return
        stage = said.slot.stage
        is_there = stage.phase is phase and stage.round >= first_round and stage.attempt >= first_attempt
        if is_there and said.sender == swarm.identities[victim].peer_id:
            killed.append(now)
            as_it_dies()
            swarm.crash(victim, back_s)

    swarm.network.on_arrival = kill
    return killed
