"""
When our rounds may begin, and what each has cost: the protocol is watched from outside, and runs as it is.

A round begins when all may have their gradients and ends when x has moved, the aggregate is on disk and the next
gradient is asked for.
"""

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from itertools import pairwise
from typing import Any

from torch import Tensor

from benchmarks.contestants.gate import Gate
from benchmarks.contestants.spending import Spending
from btard.net import Traffic
from btard.swarm import round as round_module
from btard.swarm.events import Event, RoundDone
from btard.swarm.updates import Updates, Writing

PHASES = ("commit", "settle_previous", "aggregate", "reveal", "check", "confirm", "verify", "update")
"""The steps of a round, named as in swarm/round.py; what lies between two belongs to the first."""


class Turns:
    """Which round is under way, when each of its phases began, and what it has cost."""

    def __init__(self, gate: Gate, traffic: Callable[[], Traffic]) -> None:
        self._gate, self._traffic = gate, traffic
        self._finished = self._admitted = 0
        self._written, self._sent = threading.Event(), (0, 0)
        self._began = self._applied = 0.0
        self._entered: list[tuple[str, float]] = []
        self.samples = 0
        """How many samples' gradients we have contributed to the round."""
        self.spending = Spending()
        self.spending.watch()
        self._watch_phases()
        self._watch_updates()

    def _watch_phases(self) -> None:
        for name in PHASES:
            step = getattr(round_module, name)
            setattr(round_module, name, self._note_entry(name, step))

    def _note_entry(self, name: str, step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(step)
        async def noted(*words: Any) -> Any:
            self._entered.append((name, time.perf_counter()))
            return await step(*words)

        return noted

    def _watch_updates(self) -> None:
        keep = Updates.keep

        def keep_and_tell(updates: Updates, number: int, aggregate: Tensor, *, is_applied: bool) -> Writing | None:
            def tell() -> None:
                updates.forget(number - 2)  # a run with checkpoints does so too
                self._written.set()

            async def write_and_tell() -> None:
                assert writing is not None
                await writing()
                tell()

            writing = keep(updates, number, aggregate, is_applied=is_applied)
            if writing is not None:
                return write_and_tell
            return tell()

        Updates.keep = keep_and_tell  # type: ignore[method-assign]

    def observe(self, event: Event) -> None:
        """Note that x has moved."""
        if isinstance(event, RoundDone):
            self._finished, self._applied = event.round, time.perf_counter()

    @property
    def is_under_way(self) -> bool:
        """Whether a round has begun and x has not moved yet."""
        return self._admitted > self._finished

    def end(self) -> None:
        """Say what the round took, if one is over: its aggregate is on disk and the next gradient is asked for."""
        if self._finished and not self.is_under_way:
            self._written.wait()
            self._tell()

    def begin(self) -> None:
        """Return when all may begin a round, unless one is under way; its clocks run from here."""
        if self.is_under_way:
            return
        self._written.clear()
        self._gate.await_turn()
        self._admitted = self._finished + 1
        self.spending.take()
        self.samples = 0
        traffic = self._traffic()
        self._sent = traffic.data_sent, traffic.protocol_sent
        self._entered, self._began = [], time.perf_counter()

    def _tell(self) -> None:
        ended, traffic = time.perf_counter(), self._traffic()
        self._gate.end_turn(
            bytes_data=traffic.data_sent - self._sent[0],
            bytes_protocol=traffic.protocol_sent - self._sent[1],
            phases=self._measure_phases(ended),
            spending=self.spending.take(),
            samples=self.samples,
        )

    def _measure_phases(self, ended: float) -> dict[str, float]:
        """Return the milliseconds of each phase; what we entered before our turn, the first one, begins with it."""
        steps = [(name, at) for name, at in self._entered if at < self._applied]
        marks = [(PHASES[0], self._began), *steps, ("disk", self._applied), ("", ended)]
        phases: Counter[str] = Counter()
        for (name, at), (_, later) in pairwise(marks):
            phases[name] += 1e3 * (later - at)
        return dict(phases)
