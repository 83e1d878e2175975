"""The parameters of the last rounds, for whoever must redo what a candidate did in one of them."""

from dataclasses import dataclass

from torch import Tensor

from btard.identity import PeerId
from btard.rules.config import RunConfig
from btard.rules.draws import compute_minibatch_seed
from btard.rules.messages import Report
from btard.rules.sampling import compute_sample
from btard.swarm.state import State
from btard.swarm.workload import Workload

ROUNDS = 3
"""A candidate works in round t, is quoted in t + 1, checked in t + 2, and charged and judged in t + 3."""


@dataclass(frozen=True)
class Worksite:
    """What a gradient of one round follows from: x_t, float32 of shape (D,), and the draw before it."""

    round: int
    parameters: Tensor
    q: bytes

    def sample(self, config: RunConfig, workload: Workload, peer: PeerId) -> Report:
        """Return the sample of ``peer``'s gradient in this round: for itself, its checkers and voters alike."""
        gradient = workload.gradient(self.parameters, compute_minibatch_seed(self.q, self.round, peer))
        return compute_sample(config, self.q, self.round, peer, gradient)


class Past:
    """Where each of the last rounds began; nothing while nobody is on probation, for x is large."""

    def __init__(self) -> None:
        self._starts: dict[int, Worksite] = {}

    def note(self, state: State) -> None:
        """Keep where a round begins, if a candidate works in it, and forget what is too old."""
        if state.seal.candidates:
            self._starts[state.round] = Worksite(state.round, state.parameters, state.q)
        for number in [number for number in self._starts if number < state.round - ROUNDS]:
            del self._starts[number]

    def find(self, number: int) -> Worksite | None:
        """Where a round began; ``None`` if we were not there, or nobody worked in it."""
        return self._starts.get(number)
