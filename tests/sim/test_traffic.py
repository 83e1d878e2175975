"""What the protocol costs on the wire does not depend on the size of the model (paper: O(d + n²))."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import trio
from torch import Tensor

from btard.identity import PeerId
from btard.net import Hub
from btard.robust import compute_chunk_size
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.tasks import PlainState
from btard.swarm.events import Event, RoundDone

PEERS = 4
ROUNDS = 4


class NoiseTask:
    """Gradients for nothing: one fixed noise vector, rolled by the seed."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self._noise = torch.randn(elements, generator=torch.Generator().manual_seed(1))

    def initial_parameters(self) -> Tensor:
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> PlainState:
        return PlainState()

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        return torch.roll(self._noise, int.from_bytes(seed[:2], "little"))

    def step(self, parameters: Tensor, aggregate: Tensor, state: PlainState) -> tuple[Tensor, PlainState]:
        return parameters - aggregate, PlainState(state.step + 1)


async def measure(elements: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Return (data, protocol) bytes sent per peer and round, over the rounds between the first and the last.

    Each peer's are read as it ends a round itself: what others have begun by then is a matter of chance.
    """
    hubs: dict[PeerId, Hub] = {}
    opened = Hub.__init__

    def remember(self: Hub, transport: object, me: PeerId, *args: object) -> None:
        opened(self, transport, me, *args)  # type: ignore[arg-type]
        hubs[me] = self

    monkeypatch.setattr(Hub, "__init__", remember)
    data, protocol = Counter[int](), Counter[int]()

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone):
            traffic = hubs[swarm.identities[index].peer_id].traffic
            data[event.round] += traffic.data_sent
            protocol[event.round] += traffic.protocol_sent

    config = {
        "genesis_size": PEERS,
        "rounds": ROUNDS,
        "chunk_size": compute_chunk_size(elements, PEERS),
        "tau": 100.0,
        "delta": 1e6,
    }
    swarm = SimulatedSwarm(config, lambda: NoiseTask(elements), directory, watch=watch)
    await swarm.run()
    monkeypatch.undo()
    rounds = (ROUNDS - 1) * PEERS
    return (data[ROUNDS] - data[1]) / rounds, (protocol[ROUNDS] - protocol[1]) / rounds


async def test_protocol_bytes_do_not_depend_on_the_number_of_parameters(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 10^5 to 10^7 parameters the data grows a hundredfold, the protocol by less than 2%."""
    small_data, small_protocol = await measure(100_000, tmp_path / "small", monkeypatch)
    large_data, large_protocol = await measure(10_000_000, tmp_path / "large", monkeypatch)
    assert 90 < large_data / small_data < 110
    assert abs(large_protocol / small_protocol - 1) < 0.02


def test_the_linear_task_repeats_itself() -> None:
    """Equal seeds give equal gradients."""
    task, seed = LinearTask(), bytes(32)
    parameters = task.initial_parameters()
    assert torch.equal(task.gradient(parameters, seed), LinearTask().gradient(parameters, seed))
