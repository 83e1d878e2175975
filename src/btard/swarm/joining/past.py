"""The parameters of the last rounds, for whoever must redo what a candidate did in one of them."""

from dataclasses import dataclass

from torch import Tensor

from btard.swarm.state import State

ROUNDS = 3
"""A candidate works in round t, is quoted in t + 1, checked in t + 2, and charged and judged in t + 3."""


@dataclass(frozen=True)
class Start:
    """What a gradient of one round follows from: x_t, float32 of shape (D,), and the draw before it."""

    parameters: Tensor
    q: bytes


class Past:
    """Where each of the last rounds began; nothing while nobody is on probation, for x is large."""

    def __init__(self) -> None:
        self._starts: dict[int, Start] = {}

    def note(self, state: State) -> None:
        """Keep where a round begins, if a candidate works in it, and forget what is too old."""
        if state.seal.candidates:
            self._starts[state.round] = Start(state.parameters, state.q)
        for number in [number for number in self._starts if number < state.round - ROUNDS]:
            del self._starts[number]

    def find(self, number: int) -> Start | None:
        """Where a round began; ``None`` if we were not there, or nobody worked in it."""
        return self._starts.get(number)
