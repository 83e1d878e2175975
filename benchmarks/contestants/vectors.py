"""The vectors that all contestants reduce: noise of length D, another for every peer and round, for almost no time."""

import torch
from torch import Tensor

TILE = 1_048_573
"""Elements of noise that are drawn; a vector repeats them, which no contestant makes use of. A prime."""


class Noise:
    """Normal noise of variance 1, drawn from a seed."""

    def __init__(self, elements: int, seed: int) -> None:
        self.elements = elements
        self._tile = torch.randn(TILE, generator=torch.Generator().manual_seed(seed))

    def fill(self, vector: Tensor, key: int) -> Tensor:
        """Fill a vector of shape (elements,) with the noise that ``key`` selects, and return it."""
        first = key % TILE
        position, size = 0, min(TILE - first, self.elements)
        vector[:size] = self._tile[first : first + size]
        position = size
        while position < self.elements:
            size = min(TILE, self.elements - position)
            vector[position : position + size] = self._tile[:size]
            position += size
        return vector

    def draw(self, key: int) -> Tensor:
        """Return a new vector."""
        return self.fill(torch.empty(self.elements), key)
