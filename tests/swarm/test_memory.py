"""Memory that is used again: handed out once at a time, whatever form the last reference has, and not hoarded."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.events import Event, RoundDone
from btard.swarm.memory import LEAST_BYTES, Memory, empty_vector
from btard.swarm.state import Work, as_bytes, read_values

LENGTH = LEAST_BYTES
HOLDS: dict[str, Callable[[Tensor], object]] = {
    "the vector": lambda vector: vector,
    "a slice of it": lambda vector: vector[7:9],
    "a numpy view": lambda vector: vector.numpy()[3:],
    "its bytes, as a link sends them": lambda vector: as_bytes(vector[5:]),
    "what was received into it": lambda vector: read_values(as_bytes(vector)),
    "a reshaped part": lambda vector: vector.view(2, -1)[1].detach(),
}


def where(vector: Tensor) -> int:
    """The address of its first element."""
    return vector.data_ptr()


@pytest.mark.parametrize("hold", list(HOLDS.values()), ids=list(HOLDS))
def test_what_somebody_can_reach_is_not_handed_out(hold: Callable[[Tensor], object]) -> None:
    """A block stays its holder's as long as any view of it lives, and comes back right afterwards."""
    memory = Memory()
    _other, vector = memory.empty(LENGTH), memory.empty(LENGTH)
    place, held = where(vector), [hold(vector)]
    del vector
    second = memory.empty(LENGTH)
    assert where(second) != place
    held.clear()
    third = memory.empty(LENGTH)
    assert where(third) == place


def test_only_a_block_of_about_the_size_is_used_again() -> None:
    """A part that is a chunk shorter finds the memory of the last one; a slice does not take a whole vector's."""
    memory = Memory()
    _other, vector = memory.empty(2 * LENGTH), memory.empty(2 * LENGTH)
    place = where(vector)
    del vector
    small, near = memory.empty(LENGTH), memory.empty(2 * LENGTH - 1000)
    assert where(near) == place != where(small)
    assert near.shape == (2 * LENGTH - 1000,)
    assert small.shape == (LENGTH,)


@pytest.mark.parametrize("chunks", [19, 39, 152, 1000])
def test_a_part_that_is_a_chunk_longer_finds_the_memory_of_the_last_one(chunks: int) -> None:
    """Else a peer whose parts differ by a chunk from round to round would keep a block of either size."""
    memory, chunk = Memory(), LENGTH
    _others, part = [memory.empty(chunks * chunk) for _ in range(2)], memory.empty(chunks * chunk)
    place = where(part)
    del part
    assert where(memory.empty((chunks + 1) * chunk - 7)) == place


def test_no_more_is_kept_than_is_in_use() -> None:
    """When a run lets go of all, so does the memory."""
    memory = Memory()
    vectors = [memory.empty(LENGTH) for _ in range(6)]
    assert (memory.bytes_in_use, memory.bytes_kept) == (24 * LENGTH, 0)
    del vectors[3:]
    assert (memory.bytes_in_use, memory.bytes_kept) == (12 * LENGTH, 12 * LENGTH)
    del vectors[1:]
    assert (memory.bytes_in_use, memory.bytes_kept) == (4 * LENGTH, 4 * LENGTH)
    vectors.clear()
    assert (memory.bytes_in_use, memory.bytes_kept) == (0, 0)


def test_small_vectors_are_the_allocators() -> None:
    """What is shorter than the least size costs no bookkeeping."""
    memory = Memory()
    small = memory.empty(LEAST_BYTES // 4 - 1)
    assert small.shape == (LEAST_BYTES // 4 - 1,)
    assert memory.bytes_in_use == 0
    assert empty_vector(0).shape == (0,)


def test_threads_never_share_a_block() -> None:
    """Of threads that take, fill and let go at will, each finds in its vectors what it wrote itself."""
    memory, spoilt = Memory(), []

    def work(mark: int) -> None:
        held: list[Tensor] = []
        for turn in range(60):
            held.append(memory.empty(LENGTH // 4 + 100 * (turn % 3)).fill_(mark))
            spoilt.extend(vector for vector in held if not bool(torch.all(vector == mark)))
            del held[: turn % 4]

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not spoilt
    assert memory.empty(LENGTH).shape == (LENGTH,)  # what the last threads let go is back by now
    assert memory.bytes_in_use == 0


async def test_no_work_of_a_round_outlives_the_next(autojump_clock: object, tmp_path: Path) -> None:
    """Whoever ends a round has let go of the one before the last, the first of the run too: its vectors are free.

    Of the last one it has let go of x: the one that it has just made has its place.
    """
    oldest: dict[int, set[int]] = {}
    lengths: dict[int, set[int]] = {}

    def watch(_index: int, event: Event) -> None:
        if isinstance(event, RoundDone):
            found = [item for item in gc.get_objects() if type(item) is Work]
            works = [item for item in found if item.config is swarm.config]
            oldest.setdefault(event.round, set()).add(min(item.round for item in works))
            for item in works:
                if item.round < event.round:
                    lengths.setdefault(event.round, set()).add(item.state.parameters.numel())

    config = {"tau": 2.0, "delta": 20.0, "rounds": 5, "genesis_size": 4, "delay_s": 1.0}
    swarm = SimulatedSwarm(config, LinearTask, tmp_path, watch=watch)
    await swarm.run()
    assert set(oldest) == {1, 2, 3, 4, 5}
    assert all(number - 2 <= least for number, rounds in oldest.items() for least in rounds)
    assert lengths == {number: {0} for number in range(2, 6)}
