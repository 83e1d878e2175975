"""What the swarm needs to know of a training job; training implements it."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class OptimizerState(Protocol):
    """The optimizer's memory: a step count and buffers by name, each a flat float32 tensor."""

    @property
    def step(self) -> int:
        """How many updates were applied."""

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """The tensors beside the parameters, by name."""


class Workload(Protocol):
    """A deterministic training job over one flat float32 vector of ``elements`` numbers."""

    @property
    def elements(self) -> int:
        """Length D of the vector."""

    def initial_parameters(self) -> Tensor:
        """Return x_0, shape (D,): the same at every peer."""

    def initial_optimizer(self) -> OptimizerState:
        """Return the optimizer's memory before the first step."""

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the gradient of the minibatch that the 32-byte ``seed`` selects, shape (D,)."""

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return new parameters and memory, bit-equal on every machine; the arguments stay as they are."""
