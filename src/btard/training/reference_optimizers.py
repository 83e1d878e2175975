"""
From an aggregate to the next parameters, the same bits on every machine.

Rules of this file

1. A step is a function: new tensors out, arguments unchanged, for a round may be reopened.
2. One rounding per operation: add, mul, div, square root on float32 tensors of the CPU, which IEEE 754
   fixes to the last bit. No addcmul, no lerp, no ``alpha=``, no foreach, no fused kernels: these
   may round once on one machine and twice on another.
3. Scalars are rounded to float32 before they meet a tensor, and no tensor is divided by a scalar,
   which some kernels replace by multiplying with the reciprocal.
4. No torch.sqrt: its vectorised form is off by one unit for 17% of all float32 values (torch 2.13, MKL).
5. No pow, no cos, no reduction of unspecified order (see ``schedules`` and ``compute_norm``).
6. Block by block, so that what lies between two operations stays in the cache, straight into memory that is used
   again: a new vector, or a copy, costs more than the arithmetic.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.swarm.memory import empty_vector
from btard.training.optimizer import OptimizerState
from btard.training.schedules import Schedule, compute_power, to_float32

BLOCK = 1 << 16
"""Elements that are worked on at a time: the few blocks of one step fit in a core's cache."""


def compute_blockwise(
    count: int, write: Callable[[Sequence[Tensor], Sequence[Tensor]], None], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return ``count`` vectors whose blocks ``write`` makes, element by element, of the inputs' blocks."""
    results = tuple(empty_vector(inputs[0].numel()) for _ in range(count))
    for blocks in zip(*(torch.split(vector, BLOCK) for vector in (*results, *inputs)), strict=True):
        write(blocks[:count], blocks[count:])
    return results


def scaled(tensor: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """Return ``factor`` rounded to float32 times ``tensor``: a new tensor, or ``out``."""
    return torch.mul(tensor, to_float32(factor), out=out)


def blended(old: Tensor, new: Tensor, keep: float, out: Tensor) -> Tensor:
    """Return ``out``, keep * old + (1 - keep) * new, in three roundings."""
    return scaled(old, keep, out).add_(scaled(new, 1.0 - keep))


def compute_root(tensor: Tensor) -> Tensor:
    """Return a new tensor, the correctly rounded square root of each element (the CPU's instruction, by numpy)."""
    return torch.from_numpy(np.sqrt(tensor.numpy()))


def compute_norm(tensor: Tensor) -> float:
    """Return the Euclidean norm of a flat tensor, its float64 squares summed in one fixed order."""
    squares = tensor.double().square_()
    while (length := squares.numel()) > 1:
        half = (length + 1) // 2
        squares[: length - half] += squares[half:]
        squares = squares[:half]
    return math.sqrt(squares.item()) if length else 0.0


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, in torch's convention (no dampening)."""

    schedule: Schedule
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    name = "sgd"

    def __post_init__(self) -> None:
        """Refuse values that diverge or do nothing."""
        check_range("momentum", self.momentum, 0, 1)
        check_range("weight_decay", self.weight_decay, 0, 1e6)
        if self.nesterov and not self.momentum:
            raise ConfigError("optimizer sgd: nesterov needs a momentum above 0")

    def initial_state(self, elements: int) -> OptimizerState:
        """Return a zero momentum buffer where there is momentum."""
        return OptimizerState(0, {"momentum": torch.zeros(elements)} if self.momentum else {})

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return x - lr * (g + wd * x), with the momentum's running sum in place of g."""
        rate = self.schedule.rate(state.step)

        def move(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
            (moved, *after), (x, update, *speeds) = results, inputs
            if self.weight_decay:
                update = torch.add(update, scaled(x, self.weight_decay))
            for old, new in zip(speeds, after, strict=True):
                scaled(old, self.momentum, new).add_(update)
                update = torch.add(update, scaled(new, self.momentum)) if self.nesterov else new
            torch.sub(x, scaled(update, rate, moved), out=moved)

        names = list(state.buffers)
        moved, *speeds = compute_blockwise(1 + len(names), move, (parameters, aggregate, *state.buffers.values()))
        return moved, OptimizerState(state.step + 1, dict(zip(names, speeds, strict=True)))


@dataclass(frozen=True)
class _Moments:
    """What Adam and LAMB share: running means of the aggregate and of its square."""

    schedule: Schedule
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that diverge."""
        check_range("beta1", self.beta1, 0, 1)
        check_range("beta2", self.beta2, 0, 1)
        check_range("epsilon", self.epsilon, 1e-30, 1)
        check_range("weight_decay", self.weight_decay, 0, 1e6)

    def initial_state(self, elements: int) -> OptimizerState:
        """Return zero moments."""
        return OptimizerState(0, {"mean": torch.zeros(elements), "square": torch.zeros(elements)})

    def _direction(self, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return m / (sqrt(v) + epsilon), both freed of their start at zero, and the next state."""
        step = state.step + 1
        unbias1 = 1.0 / (1.0 - compute_power(self.beta1, step))
        unbias2 = math.sqrt(1.0 / (1.0 - compute_power(self.beta2, step)))

        def follow(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
            (direction, mean, square), (g, old_mean, old_square) = results, inputs
            blended(old_mean, g, self.beta1, mean)
            blended(old_square, torch.mul(g, g), self.beta2, square)
            below = compute_root(square).mul_(to_float32(unbias2)).add_(to_float32(self.epsilon))
            scaled(mean, unbias1, direction).div_(below)

        inputs = aggregate, state.buffers["mean"], state.buffers["square"]
        direction, mean, square = compute_blockwise(3, follow, inputs)
        return direction, OptimizerState(step, {"mean": mean, "square": square})


@dataclass(frozen=True)
class AdamW(_Moments):
    """Adam with decoupled weight decay."""

    name = "adamw"

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return x * (1 - lr * wd) - lr * m / (sqrt(v) + epsilon)."""
        rate = self.schedule.rate(state.step)
        direction, after = self._direction(aggregate, state)
        for x, update in zip(torch.split(parameters, BLOCK), torch.split(direction, BLOCK), strict=True):
            torch.sub(scaled(x, 1.0 - rate * self.weight_decay), update.mul_(to_float32(rate)), out=update)
        return direction, after


@dataclass(frozen=True)
class LAMB(_Moments):
    """AdamW's direction, scaled tensor by tensor to a share of the tensor's own norm.

    ``segments`` are the lengths of the tensors in the vector. The norm of a tensor counts up to
    ``largest_norm``, and a tensor whose norm or direction is zero moves at the plain rate.
    """

    epsilon: float = 1e-6
    largest_norm: float = 10_000.0
    segments: tuple[int, ...] = ()
    name = "lamb"

    def __post_init__(self) -> None:
        """Refuse values that diverge."""
        super().__post_init__()
        check_range("largest_norm", self.largest_norm, 1e-6, 1e30)

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return x - lr * trust * (direction + wd * x), with one trust ratio per tensor."""
        rate = self.schedule.rate(state.step)
        direction, after = self._direction(aggregate, state)
        if self.weight_decay:
            for x, update in zip(torch.split(parameters, BLOCK), torch.split(direction, BLOCK), strict=True):
                update.add_(scaled(x, self.weight_decay))
        for x, update in zip(self._split(parameters), self._split(direction), strict=True):
            update.mul_(to_float32(rate * self._trust(x, update)))
        return torch.sub(parameters, direction, out=direction), after

    def _split(self, flat: Tensor) -> tuple[Tensor, ...]:
        return torch.split(flat, list(self.segments))

    def _trust(self, parameters: Tensor, update: Tensor) -> float:
        norm, size = min(compute_norm(parameters), self.largest_norm), compute_norm(update)
        return norm / size if norm > 0 and size > 0 else 1.0


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Refuse a value outside [least, most), or NaN.

    Raises:
        ConfigError: the value is outside.
    """
    if not least <= value < most:
        raise ConfigError(f"optimizer: {name} must be at least {least} and below {most}, not {value}")
