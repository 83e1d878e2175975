"""
The learning rate of a step, the same bits on every machine.

Only Python's + - * / on floats, which IEEE 754 fixes to the last bit: ``math.cos`` and ``**`` come
from the C library, whose versions differ in the last place.
"""

import struct
from dataclasses import dataclass

from btard.errors import ConfigError

DECAYS = ("none", "linear", "cosine")


def to_float32(value: float) -> float:
    """Return ``value`` rounded once to the nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def compute_power(base: float, exponent: int) -> float:
    """Return ``base`` to a non-negative ``exponent`` by repeated squaring."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def compute_half_cosine(progress: float) -> float:
    """Return (1 + cos(pi * progress)) / 2 for ``progress`` in [0, 1], within 1e-15."""
    # 1 - sin^2(pi/2 * progress): the sine's series up to the 21st power leaves 1e-17 at pi/2.
    angle = 1.5707963267948966 * progress
    term = sine = angle
    for k in range(2, 22, 2):
        term *= -angle * angle / (k * (k + 1))
        sine += term
    return max(0.0, 1.0 - sine * sine)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over ``warmup_steps``, then ``decay`` from ``lr`` to zero at the end of ``total_steps``.

    Raises:
        ConfigError: a value is out of range.
    """

    lr: float
    total_steps: int
    warmup_steps: int = 0
    decay: str = "linear"

    def __post_init__(self) -> None:
        """Refuse values that would train nothing."""
        if not 0 < self.lr <= 1e6:
            raise ConfigError(f"optimizer: lr must be positive, at most 1e6, not {self.lr}")
        if self.total_steps < 1:
            raise ConfigError(f"optimizer: the run needs at least one round, not {self.total_steps}")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ConfigError(f"optimizer: warmup_steps must lie between 0 and {self.total_steps}")
        if self.decay not in DECAYS:
            raise ConfigError(f"optimizer: decay must be one of {', '.join(DECAYS)}, not {self.decay!r}")

    def rate(self, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0, before rounding; never below zero."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.decay == "none":
            return self.lr
        left = self.total_steps - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / left) if left else 1.0
        return self.lr * ((1.0 - progress) if self.decay == "linear" else compute_half_cosine(progress))
