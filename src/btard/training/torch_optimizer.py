"""
Any optimizer of ``torch.optim``, as a function on the CPU.

Its arithmetic is torch's own: the same bits for one build of torch on one kind of CPU, not beyond.
The shipped optimizers of ``optimizers`` have no such limit.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.training.optimizer import OptimizerState
from btard.training.schedules import Schedule
from btard.training.tasks import Option, one_thread

# Loops over tensors in an order of torch's choosing, or into one kernel: both change the last bits.
PLAIN = {"foreach": False, "fused": False}


class TorchOptimizer:
    """``torch.optim.NAME`` over the whole vector as one tensor; ``schedule`` sets its learning rate each step.

    Before the first step there are no buffers; afterwards there are those that torch keeps.

    Raises:
        ConfigError: torch has no such optimizer, it refuses the options, or it cannot step on a flat vector.
    """

    def __init__(self, name: str, schedule: Schedule, options: Mapping[str, Option]) -> None:
        self.name = f"torch:{name}"
        self._schedule = schedule
        self._factory = getattr(torch.optim, name, None)
        base = torch.optim.Optimizer
        if not (isinstance(self._factory, type) and issubclass(self._factory, base) and self._factory is not base):
            raise ConfigError(f"torch.optim has no optimizer {name!r}")
        self._options: dict[str, Any] = dict(options)
        self._try_out()

    def initial_state(self, elements: int) -> OptimizerState:
        """Return the empty state: torch makes its buffers in the first step."""
        return OptimizerState(0)

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return what torch makes of the arguments; the arguments stay as they are."""
        moved = torch.nn.Parameter(parameters.detach().cpu().clone())
        moved.grad = aggregate.detach().cpu().clone()
        with torch.enable_grad(), one_thread():
            optimizer = self._build(moved, self._schedule.rate(state.step))
            if state.buffers:
                optimizer.state[moved] = {name: buffer.clone() for name, buffer in state.buffers.items()}
            optimizer.step()
        buffers = _take_tensors(self.name, optimizer.state[moved])
        return moved.detach(), OptimizerState(state.step + 1, buffers)

    def _build(self, parameter: Tensor, rate: float) -> torch.optim.Optimizer:
        assert self._factory is not None
        known = inspect.signature(self._factory).parameters
        plain = {name: value for name, value in PLAIN.items() if name in known}
        optimizer: torch.optim.Optimizer = self._factory([parameter], lr=rate, **plain, **self._options)
        return optimizer

    def _try_out(self) -> None:
        """Take two steps on a tiny vector, so that what cannot work is refused before the run begins."""
        x, state = torch.ones(3), OptimizerState(0)
        try:
            for _ in range(2):
                x, state = self.step(x, torch.ones(3), state)
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            raise ConfigError(f"{self.name} cannot train one flat vector with these options: {error}") from error


def _take_tensors(name: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the buffers of a torch optimizer, which must all be tensors (or absent) to be sealed and sent."""
    buffers = {key: value for key, value in state.items() if value is not None}
    odd = [key for key, value in buffers.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConfigError(f"optimizer {name} keeps {', '.join(odd)} outside tensors; choose another")
    return buffers
