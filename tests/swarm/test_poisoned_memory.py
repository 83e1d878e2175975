"""Aggregates that lead to the sealed x and to another memory of the optimizer: float32 swallows the difference."""

from pathlib import Path

import torch
import trio
from tests.swarm.joining_scenes import MEMBERS, SETTINGS, STRANGER, find, play, require_sound, slowly
from torch import Tensor

from btard.identity import PeerId
from btard.net import Hub, Loan
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Promoted
from btard.swarm.frames import Kind, UpdateHead, UpdateRequest
from btard.swarm.joining.fetching_state import Memory
from btard.swarm.joining.transfer_frames import Claim, Claims, RoundsQuestion
from btard.swarm.state import State, as_bytes, compute_state_root
from btard.swarm.workload import OptimizerState
from btard.wire import decode, encode

CHEATS = (1, 3)
"""The stranger asks one of them first in the round of its promotion."""


class MomentumTask(LinearTask):
    """Least squares by SGD with momentum."""

    def initial_optimizer(self) -> Memory:
        """Return no momentum."""
        return Memory(0, {"speed": torch.zeros(self.elements)})

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, Memory]:
        """Return x after one step, and the momentum."""
        speed = 0.5 * state.buffers["speed"] + aggregate
        return parameters - 0.02 * speed, Memory(state.step + 1, {"speed": speed})


class Poisons(Conduct):
    """Gives, in the round by which somebody is promoted, an aggregate that moves only the memory; f name it alike."""

    def __init__(self, swarm: SimulatedSwarm) -> None:
        self._swarm, self._task, self.served = swarm, MomentumTask(), 0

    def _forge(self, number: int) -> Tensor | None:
        """The other aggregate of a round, if it is due."""
        states = {event.round: event.result for event in self._swarm.outcomes[0].rounds}
        if number - 1 not in states or number not in states or not states[number].newcomers:
            return None
        before, after = states[number - 1], states[number]
        return self._move(before, after)

    def _move(self, before: State, after: State) -> Tensor:
        """Elements of the aggregate as far from the true ones as x does not show."""
        other = (after.optimizer.buffers["speed"] - 0.5 * before.optimizer.buffers["speed"]).clone()
        for size in (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7):
            for moved in (other + size, other - size):
                x, _ = self._task.step(before.parameters, moved, before.optimizer)
                other = torch.where(x == after.parameters, moved, other)
        x, memory = self._task.step(before.parameters, other, before.optimizer)
        assert torch.equal(x, after.parameters)
        assert not torch.equal(memory.buffers["speed"], after.optimizer.buffers["speed"])
        return other

    async def accompany(self, hub: Hub) -> None:
        """Answer in place of the reception, once that is there."""
        while Kind.NAMES not in hub.serve:
            await trio.sleep(0.1)
        give, name = hub.serve[Kind.UPDATE], hub.serve[Kind.NAMES]

        async def lie(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            other = self._forge(decode(body, UpdateRequest).round)
            if other is None:
                return await give(peer, body)
            await trio.lowlevel.checkpoint()
            self.served += 1
            return encode(UpdateHead(True)), Loan(as_bytes(other), trio.CancelScope())

        async def name_other(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            other = self._forge(decode(body, RoundsQuestion).last)
            if other is None:
                return await name(peer, body)
            await trio.lowlevel.checkpoint()
            claim = Claim(True, compute_state_root(other, self._swarm.config.chunk_size))
            return encode(Claims((claim,))), None

        hub.serve[Kind.UPDATE], hub.serve[Kind.NAMES] = lie, name_other


def test_aggregates_that_move_only_the_memory_cost_no_newcomer_its_place(tmp_path: Path) -> None:
    """As many members as may be Byzantine give and name one alike; the newcomer stays with everybody's state."""
    values = {"genesis_size": MEMBERS, **SETTINGS, "probation": 3, "rounds": 24}
    swarm = SimulatedSwarm(values, MomentumTask, tmp_path, joins={STRANGER: 3.0}, delivery=slowly)
    liars = {index: Poisons(swarm) for index in CHEATS}
    swarm.conducts.update(liars)
    outcome = play(swarm)
    assert sum(liar.served for liar in liars.values())
    promoted = find(outcome, STRANGER, Promoted)
    assert len(promoted) == 1
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert outcome.peers[STRANGER].rounds[-1].round == values["rounds"]
    require_sound(swarm, outcome)
