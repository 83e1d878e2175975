"""Attacks on gradients: the commitment, the slices and the reports agree with one another, but not with the data."""

import torch
from torch import Tensor

from btard.attacks.attacker import Attacker
from btard.identity import Context, digest
from btard.swarm.state import Gradient, commit_to

FACTOR = 1000.0
"""How much larger than an honest gradient a false one is; clipping makes the size nearly irrelevant."""


class SignFlip(Attacker):
    """Commits to -1000 times its gradient (paper: Sign flipping)."""

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the gradient that undoes the work of a thousand."""
        if not self.is_due(round_number):
            return gradient
        self.note_act(round_number)
        return commit_to(-FACTOR * gradient.values, chunk_size, overflow=gradient.overflow)


class RandomDirection(Attacker):
    """Commits to a vector 1000 times as long as its gradient, in one direction that all attackers of a run share."""

    def __init__(self, first_round: int, seed: int) -> None:
        super().__init__(first_round)
        self._seed = seed

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return a long step to nowhere (paper: Random direction)."""
        if not self.is_due(round_number):
            return gradient
        self.note_act(round_number)
        length = FACTOR * float(torch.linalg.vector_norm(gradient.values))
        direction = draw_direction(self._seed, gradient.values.numel())
        return commit_to(length * direction, chunk_size, overflow=gradient.overflow)


def draw_direction(seed: int, elements: int, purpose: bytes = b"direction") -> Tensor:
    """Return a random unit vector, float32 of shape (elements,), the same for equal arguments."""
    number = digest(Context.EXPAND, b"attack", purpose, str(seed).encode())
    generator = torch.Generator().manual_seed(int.from_bytes(number[:7], "little"))
    direction = torch.randn(elements, generator=generator)
    return direction.div_(torch.linalg.vector_norm(direction))
