"""
The protocol whole: every check, signature and encryption, the ledger and the disk. Only the gradient costs nothing.

A round lasts from the moment when all may have their gradients to the one when x has moved, the aggregate is on disk
and the next gradient is asked for: what a run whose gradients take no time repeats. Nothing in the
protocol is left out or told that it is measured; functions are watched from outside.
"""

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import Any

import structlog
import torch
import trio
from torch import Tensor

from benchmarks.contestants.gate import Gate, Role, parse_role
from benchmarks.contestants.spending import Spending
from benchmarks.contestants.vectors import Noise
from btard.identity import Context, Identity, digest
from btard.net import Address, Hub, Terms, Traffic, open_tcp
from btard.robust import compute_chunk_size
from btard.rules.config import RunConfig
from btard.sim.swarm import StaticDirectory
from btard.swarm import round as round_module
from btard.swarm.compute import ThreadCompute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone
from btard.swarm.peer import Membership, run_peer
from btard.swarm.updates import Updates, Writing
from btard.swarm.workload import OptimizerState
from btard.training.optimizers import make_optimizer

LOOPBACK = Address("127.0.0.1", 0)
MANY = 1_000_000
LONGEST_GRADIENT_MS = 3_600_000
"""What every peer promises: it covers the turns of the others, for which a gradient has to wait."""
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

    def pause(self, prepare: Callable[[], Tensor]) -> Tensor:
        """Return a gradient: at once, or if a round begins with it, when all may begin."""
        if self._admitted > self._finished:
            return prepare()
        if self._finished:
            self._written.wait()
            self._tell()
        gradient = prepare()
        self._written.clear()
        self._gate.await_turn()
        self._admitted = self._finished + 1
        self.spending.take()
        traffic = self._traffic()
        self._sent = traffic.data_sent, traffic.protocol_sent
        self._entered, self._began = [], time.perf_counter()
        return gradient

    def _tell(self) -> None:
        ended, traffic = time.perf_counter(), self._traffic()
        self._gate.end_turn(
            bytes_data=traffic.data_sent - self._sent[0],
            bytes_protocol=traffic.protocol_sent - self._sent[1],
            phases=self._measure_phases(ended),
            spending=self.spending.take(),
        )

    def _measure_phases(self, ended: float) -> dict[str, float]:
        """Return the milliseconds of each phase; what we entered before our turn, the first one, begins with it."""
        steps = [(name, at) for name, at in self._entered if at < self._applied]
        marks = [(PHASES[0], self._began), *steps, ("disk", self._applied), ("", ended)]
        phases: Counter[str] = Counter()
        for (name, at), (_, later) in pairwise(marks):
            phases[name] += 1e3 * (later - at)
        return dict(phases)


class FreeGradients:
    """The workload: noise for a gradient, one step of SGD for an update."""

    def __init__(self, role: Role, turns: Turns) -> None:
        self.elements, self._turns = role.elements, turns
        self._noise = Noise(role.elements, role.seed)
        self._optimizer = make_optimizer("sgd", {}, elements=role.elements, segments=(role.elements,), total_steps=MANY)
        self.step = turns.spending.charge("optimizer", self._step)

    def initial_parameters(self) -> Tensor:
        """The origin."""
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> OptimizerState:
        """The memory before the first step."""
        return self._optimizer.initial_state(self.elements)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """The noise that the seed selects, made while nobody's clock runs."""
        return self._turns.pause(lambda: self._noise.draw(int.from_bytes(seed[:8], "little")))

    def _step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """The parameters after one step."""
        return self._optimizer.step(parameters, aggregate, state)  # type: ignore[arg-type]


def make_identities(role: Role) -> list[Identity]:
    """Return the keys of all peers, by rank."""
    return [Identity(digest(Context.EXPAND, b"round", f"{role.seed}/{rank}".encode())) for rank in range(role.peers)]


def make_config(role: Role, founder: Identity, delay_s: float) -> RunConfig:
    """Return the run: the defaults, with a tau that the median row of a column has as its distance (calibrate)."""
    chunk_size = compute_chunk_size(role.elements, role.peers)
    radius = (chunk_size * (1 - 1 / role.peers)) ** 0.5
    return RunConfig(
        founder=founder.peer_id.hex(),
        genesis_size=role.peers,
        rounds=MANY,
        seed=role.seed,
        elements=role.elements,
        chunk_size=chunk_size,
        optimizer="sgd",
        tau=radius,
        delta=2 * radius,
        delay_s=delay_s,
        max_gradient_s=LONGEST_GRADIENT_MS / 1000,
    )


async def compete(role: Role, gate: Gate) -> None:
    """Be one peer of the run until nobody wants another round."""
    identities = make_identities(role)
    me, members = identities[role.rank], [identity.peer_id for identity in identities]
    config = make_config(role, identities[0], delay_s=10.0)
    async with open_tcp(me, Terms(config.run_id, config.field_digests), LOOPBACK) as transport:
        turns = Turns(gate, lambda: transport.traffic)
        workload = FreeGradients(role, turns)
        async with trio.open_nursery() as nursery:
            hub = Hub(transport, me.peer_id)
            await nursery.start(hub.run)
            places = await trio.to_thread.run_sync(gate.meet, str(transport.address))
            directory = StaticDirectory(dict(zip(members, map(Address.parse, places), strict=True)))
            member = Membership(
                me,
                config,
                workload,
                Path(role.directory) / f"peer-{role.rank}",
                Conduct(),
                ThreadCompute(),
                turns.observe,
                LONGEST_GRADIENT_MS,
                disk=ThreadCompute(),
                aside=ThreadCompute(),
            )
            await run_peer(member, hub, directory)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    torch.set_num_threads(1)
    trio.run(partial(compete, parse_role(), Gate()))
