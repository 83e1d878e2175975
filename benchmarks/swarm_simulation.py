"""A simulated swarm of the real peer code, and what a round costs each of its peers: bytes, CPU seconds, hops."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import trio
from torch import Tensor
from trio.testing import MockClock

from benchmarks.contestants.vectors import Noise
from btard.net import Limits, MemoryTransport, memory
from btard.robust import compute_chunk_size
from btard.rules import config as run_config
from btard.sim import SimulatedSwarm
from btard.sim import swarm as sim_swarm
from btard.sim.disk import ledgers_in_memory
from btard.sim.play import rare_collections
from btard.sim.tasks import StubTask
from btard.swarm.events import Event, RoundDone

MOST = 4096
HOP_S = 0.05
"""Virtual seconds that every message takes: rounds are counted in them."""


@dataclass(frozen=True)
class Mark:
    """How far the swarm had come when a round ended: virtual and CPU seconds, bytes sent by all peers."""

    virtual_s: float
    cpu_s: float
    data: int
    protocol: int


class NoiseTask(StubTask):
    """Noise for a gradient; what making it costs is not the protocol's, but small beside it."""

    def __init__(self, noise: Noise) -> None:
        super().__init__(noise.elements)
        self._noise = noise

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """The noise that the seed selects."""
        return self._noise.draw(int.from_bytes(seed[:8], "little"))


class CountedSwarm(SimulatedSwarm):
    """A swarm whose transports are remembered."""

    def _connect(self, index: int) -> MemoryTransport:
        transport = super()._connect(index)
        self.__dict__.setdefault("transports", []).append(transport)
        return transport

    def mark(self) -> Mark:
        """How far it has come."""
        traffics = [transport.traffic for transport in self.__dict__["transports"]]
        data, protocol = (sum(getattr(item, name) for item in traffics) for name in ("data_sent", "protocol_sent"))
        return Mark(trio.current_time(), time.thread_time(), data, protocol)


@contextmanager
def any_size() -> Iterator[None]:
    """Let a run begin with more members than a recovery could serve: here nobody halts, and nobody floods."""
    most, hub, backlog = run_config.MAX_MEMBERS, sim_swarm.Hub, memory.BACKLOG
    run_config.MAX_MEMBERS = memory.BACKLOG = MOST
    sim_swarm.Hub = lambda transport, me: hub(transport, me, Limits(strangers=MOST))  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        run_config.MAX_MEMBERS, sim_swarm.Hub, memory.BACKLOG = most, hub, backlog  # type: ignore[misc]


async def run(peers: int, elements: int, rounds: int, seed: int, directory: Path) -> list[Mark]:
    """Return a mark for the end of every round, as the first peer sees it."""
    noise, marks = Noise(elements, seed), list[Mark]()
    chunk_size = compute_chunk_size(elements, peers)
    radius = (chunk_size * (1 - 1 / peers)) ** 0.5
    options = {
        "genesis_size": peers, "rounds": rounds + 2, "chunk_size": chunk_size, "tau": radius, "delta": 2 * radius,
        "max_byzantine": -1,
    }  # fmt: skip

    def watch(index: int, event: Event) -> None:
        if index == 0 and isinstance(event, RoundDone):
            marks.append(swarm.mark())
            if len(marks) > rounds:
                swarm.stop()

    swarm = CountedSwarm(
        options, lambda: NoiseTask(noise), directory, seed=seed, watch=watch, delivery=lambda *_: HOP_S
    )
    await swarm.run()
    return marks


def simulate(peers: int, elements: int, rounds: int, seed: int) -> dict[str, float]:
    """Return the costs of a round per peer, of ``rounds`` after the first, and how many hops it takes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory, ledgers_in_memory(), rare_collections(), any_size():
        clock = MockClock(autojump_threshold=0)
        try:
            marks = trio.run(run, peers, elements, rounds, seed, Path(directory), clock=clock)
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    first, last, share = marks[0], marks[-1], (len(marks) - 1) * peers
    return {
        "cpu_s_per_peer": (last.cpu_s - first.cpu_s) / share,
        "bytes_data": (last.data - first.data) / share,
        "bytes_protocol": (last.protocol - first.protocol) / share,
        "hops": (last.virtual_s - first.virtual_s) / (len(marks) - 1) / HOP_S,
    }
