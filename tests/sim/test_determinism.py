"""Equal seeds give equal runs: in every process, whatever the hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from btard.sim.chance import open_stream
from btard.sim.determinism import run_deterministically
from btard.sim.drawing import Order
from btard.sim.play import play
from btard.sim.power import RUNNING

ORDER = Order(peers=5, byzantine=2, rounds=12, attack="sign-flip,equivocate", faults="latency,restart,strangers")
SEED = 12
PROGRAM = """
import sys, pathlib
from btard.sim.drawing import Order
from btard.sim.play import play
from btard.sim.power import RUNNING
order = Order(peers=5, byzantine=2, rounds=12, attack="sign-flip,equivocate", faults="latency,restart,strangers")
print(play(order.draw(12), pathlib.Path(sys.argv[1])).trace_digest)
"""


def test_one_digest_in_every_process(tmp_path: Path) -> None:
    """Two other processes with other hash seeds come to the trace of this one; another seed comes to another."""
    (tmp_path / "here").mkdir()
    here = play(ORDER.draw(SEED), tmp_path / "here")
    assert any(way.admitted for way in here.ways.values())
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / hash_seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=100)
        digests.add(result.stdout.split()[-1])
    assert digests == {here.trace_digest}
    other = play(ORDER.draw(SEED + 1), tmp_path / "other")
    assert other.trace_digest != here.trace_digest


def list_schedule(seed: int) -> list[int]:
    """Return the order in which ten tasks that start together take five steps each."""
    steps: list[int] = []

    async def step(number: int) -> None:
        for _ in range(5):
            steps.append(number)
            await trio.lowlevel.checkpoint()

    async def main() -> list[int]:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(step, number)
        return steps

    return run_deterministically(main, seed)


def test_the_schedule_belongs_to_the_seed() -> None:
    """Tasks run in an order that looks random, is the same for equal seeds and differs for others."""
    assert list_schedule(1) == list_schedule(1)
    assert list_schedule(1) != list_schedule(2)


def test_the_scheduler_is_left_as_it_was() -> None:
    """After a run, also one that fails, trio's own switch and generator are what they were before."""
    from trio._core import _run as scheduler

    async def fail() -> None:
        raise ValueError

    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    with pytest.raises(ValueError):
        run_deterministically(fail, 1)
    assert (scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()) == before


def test_streams_of_one_seed_are_independent() -> None:
    """A purpose names its own stream: drawing from one does not move another."""
    first = open_stream(1, "a").random()
    assert first == open_stream(1, "a").random()
    assert first != open_stream(1, "b").random()
    assert first != open_stream(2, "a").random()


def test_the_context_of_the_caller_is_not_seen() -> None:
    """Whatever was set where a simulation is started, its network and its faults belong to no peer."""

    async def look() -> int:
        return RUNNING.get(-1)

    token = RUNNING.set(0)
    try:
        assert run_deterministically(look, 1) == -1
    finally:
        RUNNING.reset(token)
