"""What our peers train between the turns of others: noise for nothing, or a real task whose gradients take time."""

import torch
from torch import Tensor

from benchmarks.contestants.gate import Role
from benchmarks.contestants.turns import Turns
from benchmarks.contestants.vectors import Noise
from btard.rules.config import RunConfig
from btard.swarm.conduct import Conduct
from btard.swarm.state import Gradient
from btard.swarm.workload import OptimizerState
from btard.training import build_workload, make_optimizer

MANY = 1_000_000


class FreeGradients:
    """The workload: noise for a gradient, one step of SGD for an update."""

    def __init__(self, role: Role, turns: Turns) -> None:
        self.elements, self._turns = role.elements, turns
        self._noise = Noise(role.elements, role.seed)
        self._optimizer = make_optimizer("sgd", {}, elements=role.elements, segments=(role.elements,), total_steps=MANY)
        self.step = turns.spending.charge("optimizer", self._step)

    def initial_parameters(self) -> Tensor:
        """The origin."""
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> OptimizerState:
        """The memory before the first step."""
        return self._optimizer.initial_state(self.elements)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """The noise that the seed selects, made while nobody's clock runs where a round begins with it."""
        self._turns.end()
        noise = self._noise.draw(int.from_bytes(seed[:8], "little"))
        self._turns.begin()
        return noise

    def _step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """The parameters after one step."""
        return self._optimizer.step(parameters, aggregate, state)  # type: ignore[arg-type]


class TaskGradients:
    """The workload of a run file; computing a gradient is part of the round that begins with it."""

    def __init__(self, config: RunConfig, turns: Turns) -> None:
        self._job, self._turns = build_workload(config), turns
        self.elements, self.batch_size = self._job.elements, self._job.task.batch_size  # type: ignore[attr-defined]
        self.initial_parameters, self.initial_optimizer = self._job.initial_parameters, self._job.initial_optimizer
        self._compute = turns.spending.charge("gradient of the task", self._job.gradient)
        self.step = turns.spending.charge("optimizer", self._job.step)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """The gradient of the task."""
        self._turns.end()
        self._turns.begin()
        gradient: Tensor = self._compute(parameters, seed)
        return gradient


class Contributing(Conduct):
    """Honest conduct that counts the samples of our own gradients: what a validator computes moves nothing."""

    def __init__(self, turns: Turns, batch_size: int) -> None:
        self._turns, self._batch_size = turns, batch_size

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the gradient as it is."""
        self._turns.samples += 0 if gradient.overflow else self._batch_size
        return super().commitment(round_number, gradient, chunk_size)
