"""
What a run needs to know of a model and its data.

A task is a function from (parameters, seed) to a gradient. Because it depends on nothing else,
anyone can recompute anyone's gradient: that is all of Verification 3.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor, nn

Option = str | int | float | bool


class Evaluation(NamedTuple):
    """How well parameters do on the hold-out; ``accuracy`` is in [0, 1], or ``None`` where it means nothing."""

    loss: float
    accuracy: float | None


class Task(Protocol):
    """A model with its data, seen as functions of one flat float32 vector of ``elements``."""

    @property
    def name(self) -> str:
        """The name in the run's configuration."""

    @property
    def elements(self) -> int:
        """The length D of the flat vector."""

    @property
    def segments(self) -> tuple[int, ...]:
        """The lengths of the tensors that lie one after the other in the vector; they sum to ``elements``."""

    def initial_parameters(self, seed: bytes) -> Tensor:
        """Return x_0, shape (D,), float32, on the CPU: the same bits on every machine for the same ``seed``."""

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the gradient, shape (D,), float32, of the minibatch that the 32-byte ``seed`` selects.

        Equal arguments give equal bits on one machine, whatever the caller's thread count, grad
        mode or random state, and leave all of them as they were. Safe to call from several threads.
        """

    def evaluate(self, parameters: Tensor) -> Evaluation:
        """Return loss and accuracy on the hold-out, which no minibatch contains."""

    def fingerprint(self) -> bytes:
        """Return a 32-byte digest of the data and of the options that change a gradient."""


class Minibatch(NamedTuple):
    """What a module is called with, and the loss of what it returns, a mean over the samples."""

    inputs: tuple[Tensor, ...]
    loss: Callable[[Tensor], Tensor]


class ModuleTask(Task, Protocol):
    """A task whose gradient is a torch module's, as both shipped ones are: other trainers can do the same work."""

    @property
    def batch_size(self) -> int:
        """Samples in one minibatch."""

    def module(self, parameters: Tensor) -> nn.Module:
        """Return the module at ``parameters``, shape (D,), on the CPU, to be trained on: its memory is its own."""

    def minibatch(self, seed: bytes) -> Minibatch:
        """Return the minibatch of ``gradient`` for the same 32-byte ``seed``."""
