"""
Gradients that take virtual time, and nothing else that does.

A gradient of a simulated peer is worked out in no time. Here its peer then waits as long as one of its machine takes,
whoever asked for it: its own, one that it redoes as a validator or as a voter, a sample of a candidate. What else
comes after a gradient in the same thread waits for it, as it does where threads are real; and what a thread has begun
goes on to its end though nobody wants it any more, unless the process dies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import trio
from torch import Tensor

from btard.sim.chance import open_stream
from btard.sim.scenario import JITTER, Scenario
from btard.swarm.workload import OptimizerState, Workload
from btard.training.trainer import ASIDE

T = TypeVar("T")


@dataclass
class Pace:
    """How long the gradients of one peer take, each a little longer by chance, and what it says of that in HELLO."""

    gradient_s: float
    promised_ms: int
    dice: Random

    def draw(self) -> float:
        """Return how long its next one takes."""
        return self.gradient_s * (1 + self.dice.uniform(0, JITTER))


def find_paces(scenario: Scenario) -> dict[int, Pace]:
    """Return the paces of a scenario; nobody has one where gradients take no time."""
    promises = scenario.promises or {}
    return {
        index: Pace(
            gradient_s,
            max(1, math.ceil(1000 * promises.get(index, gradient_s))),
            open_stream(scenario.seed, f"gradients of {index}"),
        )
        for index, gradient_s in (scenario.gradients or {}).items()
    }


class CountingWorkload:
    """A training job that counts its gradients, whoever asks for them."""

    def __init__(self, workload: Workload) -> None:
        self._workload, self.count = workload, 0

    @property
    def elements(self) -> int:
        """Length of the vector."""
        return self._workload.elements

    def initial_parameters(self) -> Tensor:
        """Return where training begins."""
        return self._workload.initial_parameters()

    def initial_optimizer(self) -> OptimizerState:
        """Return the memory before the first step."""
        return self._workload.initial_optimizer()

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the gradient on the minibatch of ``seed``, and count it."""
        self.count += 1
        return self._workload.gradient(parameters, seed)

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return the parameters after one step, and the memory."""
        return self._workload.step(parameters, aggregate, state)


class Machine:
    """What a peer computes on from one start to its end: the thread of its rounds, and those beside it."""

    def __init__(self, workload: Workload, pace: Pace) -> None:
        self.workload, self._pace = CountingWorkload(workload), pace
        self._busy: dict[trio.CancelScope, None] = {}
        self._is_dead = False
        self.compute, self.aside = SlowCompute(self, 1), SlowCompute(self, ASIDE)

    def work(self, task: Callable[[], T]) -> tuple[T, float]:
        """Return what ``task`` comes to, and how long its gradients take."""
        before = self.workload.count
        result = task()
        return result, sum(self._pace.draw() for _ in range(self.workload.count - before))

    async def stay_busy(self, seconds: float) -> None:
        """Return after so long, also where nobody waits for it any more; at once if the machine dies."""
        with trio.CancelScope(shield=not self._is_dead) as scope:
            self._busy[scope] = None
            try:
                await trio.sleep(seconds)
            finally:
                del self._busy[scope]
        if self._is_dead:
            await trio.lowlevel.checkpoint_if_cancelled()

    def die(self) -> None:
        """Leave all work undone."""
        self._is_dead = True
        for scope in self._busy:
            scope.cancel()


class SlowCompute:
    """Runs work in as many places as the threads of a real peer have; a gradient keeps its place busy for a while."""

    takes_time = True

    def __init__(self, machine: Machine, places: int) -> None:
        self._machine, self._limiter = machine, trio.CapacityLimiter(places)

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``, once its gradients had their time."""
        async with self._limiter:
            result, seconds = self._machine.work(work)
            if seconds:
                await self._machine.stay_busy(seconds)
        return result
