"""A tiny training job for simulations: least squares with Gaussian data drawn from each seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from btard.identity import Context, digest
from btard.swarm.workload import OptimizerState


@dataclass(frozen=True)
class PlainState:
    """The memory of plain SGD: how many steps."""

    step: int = 0
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


class LinearTask:
    """Minimise E (a·x - a·x*)² over x in R^elements, with a ~ N(0, I) and minibatches of ``batch`` rows."""

    def __init__(self, elements: int = 200, batch: int = 32, learning_rate: float = 0.05) -> None:
        self.elements, self._batch, self._rate = elements, batch, learning_rate
        self.solution = self._normal(digest(Context.DATASET, b"solution"), 1)[0]

    def _normal(self, seed: bytes, rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "little"))
        return torch.randn(rows, self.elements, generator=generator)

    def initial_parameters(self) -> Tensor:
        """Return the origin, (elements,) float32."""
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> PlainState:
        """Return the memory before the first step."""
        return PlainState()

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the gradient on the minibatch of ``seed``, (elements,) float32."""
        rows = self._normal(seed, self._batch)
        return rows.T @ (rows @ (parameters - self.solution)) / self._batch

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return the parameters after one step of gradient descent, and the step count."""
        return parameters - self._rate * aggregate, PlainState(state.step + 1)

    def loss(self, parameters: Tensor) -> float:
        """Return the distance to the solution."""
        return float(torch.linalg.vector_norm(parameters - self.solution))


class StubTask:
    """A gradient that never changes: what the protocol costs when training costs nothing."""

    def __init__(self, elements: int = 32) -> None:
        self.elements = elements
        self._gradient = torch.linspace(-1.0, 1.0, elements)

    def initial_parameters(self) -> Tensor:
        """Return the origin, (elements,) float32."""
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> PlainState:
        """Return the memory before the first step."""
        return PlainState()

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the constant gradient, (elements,) float32, in memory of its own."""
        return self._gradient.clone()

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return the parameters after one small step, and the step count."""
        return parameters - 0.001 * aggregate, PlainState(state.step + 1)
