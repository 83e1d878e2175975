"""What a run needs to know of an optimizer: a function from an aggregate to the next parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class OptimizerState:
    """``step`` counts the updates applied; ``buffers`` lie in the order of their names, as in the state root."""

    step: int
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the buffers."""
        object.__setattr__(self, "buffers", dict(sorted(self.buffers.items())))


class Optimizer(Protocol):
    """A rule that turns an aggregate into new parameters."""

    @property
    def name(self) -> str:
        """The name in the run's configuration."""

    def initial_state(self, elements: int) -> OptimizerState:
        """Return the state before the first step, for a vector of ``elements``."""

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return x_{t+1}, shape (D,), float32, and the state after it; the arguments stay as they are."""
