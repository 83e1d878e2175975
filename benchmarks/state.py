"""
How fast does a state reach a joiner? --megabytes of it from --sources peers over encrypted links on loopback.

    stream    the same bytes over one trio.SocketStream between two processes, receive_some() of 1 MiB, thrown away
    socket    the same with the socket below it, recv_into() 1 MiB at a time, into memory as large as the state
    cold      the first joiner of peers that have just started, all of them anew in each of three lots
    warm      the next joiners, of the same peers
    resumed   a joiner that is killed with SIGKILL half way, and started again: what is fetched twice

All take turns, because a shared machine's speed changes within seconds; medians are compared. Before each but the
stream, which needs none, more memory than it needs is written and given back, outside what is timed: where the host of
a virtual machine takes free memory away, the next to use it waits for the host, and nothing that keeps what it receives
is faster than that ("new memory"). One joiner comes without ("as found").

Every peer is a process of its own with a real ledger and a real checkpoint; so is the joiner. The seconds of a joiner
are those from its first question for the state to the last chunk checked; making links and following the seals is not
in them.

Exit status 1 if a joiner gets another state than the seal names, or if the median of the first ones, or that of the
next ones, gets less than a third of the stream's median speed.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import structlog
import torch
import trio
import typer
from typer import Option

from benchmarks.channel import MIB, fill, measure, send_raw
from benchmarks.report import describe, write
from benchmarks.state_run import CHUNK, VECTORS, StillTask, make_config, make_identities, write_run
from benchmarks.usage import make_memory, read_cpu_s, read_peak_mb
from btard.identity import Identity
from btard.net import Address, Hub, Terms, open_tcp
from btard.rules.config import RunConfig
from btard.swarm.compute import ThreadCompute
from btard.swarm.joining.asking_lineage import LineAsker
from btard.swarm.joining.fetching_state import Progress, StateFetcher
from btard.swarm.joining.telling_lineage import LineTeller
from btard.swarm.joining.telling_state import StateTeller
from btard.swarm.ledger import Ledger
from btard.swarm.state import is_named_by
from btard.swarm.updates import Updates
from btard.training.checkpoints import CheckpointSnapshots

LOOPBACK = Address("127.0.0.1", 0)
PATIENCE_S = 300.0
MESSAGE = 16 << 20
LOTS = 3
"""Times that the members are started: each time, one joiner is the first."""
TURNS = 4
"""Joiners of the same members."""
LEAST = 1 / 3
"""Of a stream's speed: what the median first joiner must get, and the median later one."""
SPARE = 3
"""Times the state's size that is written and given back before a turn: what was freed last is not what is used next."""


# --- the processes ---


def run_source(directory: Path, config: RunConfig, sources: int, index: int, ports: Connection) -> None:
    """Be a member that serves until it is killed."""
    torch.set_num_threads(1)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    trio.run(serve, directory / f"peer-{index}", config, make_identities(sources)[index], ports)


async def serve(place: Path, config: RunConfig, identity: Identity, ports: Connection) -> None:
    """Answer newcomers, from the member's directory."""
    terms = Terms(config.run_id)
    with Ledger.create(place, config, identity.peer_id) as ledger:
        async with open_tcp(identity, terms, LOOPBACK) as transport, trio.open_nursery() as nursery:
            hub = Hub(transport, identity.peer_id)
            hub.favour(lambda _: True)  # who fetches a state is a candidate
            LineTeller(hub, ledger)
            snapshots, updates = CheckpointSnapshots(place / "checkpoints"), Updates(place, ledger, ThreadCompute())
            teller = StateTeller(config, hub, ledger, snapshots, updates, ThreadCompute())
            nursery.start_soon(teller.run)
            ports.send(transport.address.port)
            await hub.run()


def run_joiner(
    directory: Path, config: RunConfig, sources: int, ports: list[int], results: Connection, spare: int
) -> None:
    """Be the joiner: fetch the state into the directory, report progress and the end."""
    torch.set_num_threads(1)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    trio.run(join, directory, config, sources, ports, results, spare)


async def join(
    directory: Path, config: RunConfig, sources: int, ports: list[int], results: Connection, spare: int
) -> None:
    """Follow the seals, fetch the state with ``spare`` bytes of free memory at hand, say how long it took."""
    identity, task = Identity.generate(), StillTask(config.elements)
    members = [each.peer_id for each in make_identities(sources)]
    reported = 0

    def report(progress: Progress) -> None:
        nonlocal reported
        if progress.done >= reported + progress.total // 10:
            reported = progress.done
            results.send(("progress", progress.done / progress.total))

    async with open_tcp(identity, Terms(config.run_id), LOOPBACK) as transport, trio.open_nursery() as nursery:
        hub = Hub(transport, identity.peer_id)
        await nursery.start(hub.run)
        for member, port in zip(members, ports, strict=True):
            await hub.connect(member, Address("127.0.0.1", port))
        compute = ThreadCompute()
        line = (await LineAsker(config, hub, compute).find_line(members)).line
        made_gb_s = make_memory(directory.parent, spare)
        begun, cpu = time.perf_counter(), os.times()
        state = await StateFetcher(config, hub, task, line, members, directory, compute, report).fetch()
        seconds, used = time.perf_counter() - begun, os.times()
        is_right = is_named_by(line.head.seal, state.parameters, state.optimizer, CHUNK)
        results.send(
            (
                "done",
                {
                    "seconds": seconds,
                    "cpu_s": {"user": used.user - cpu.user, "system": used.system - cpu.system},
                    "received": state.received,
                    "kept": state.kept,
                    "faults": len(state.faults),
                    "is_right": is_right,
                    "peak_mb": read_peak_mb(),
                    "memory_gb_s": made_gb_s,
                },
            )
        )
        nursery.cancel_scope.cancel()


# --- the measurements ---


def start_joiner(
    directory: Path, config: RunConfig, sources: int, ports: list[int], spare: int
) -> tuple[BaseProcess, Connection]:
    """Start a joiner; return its process and what it reports to."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_joiner, args=(directory, config, sources, ports, theirs, spare))
    process.start()
    theirs.close()
    return process, ours


def wait_done(process: BaseProcess, results: Connection) -> dict[str, Any]:
    """Return what a joiner says at its end."""
    while True:
        if not results.poll(PATIENCE_S):
            raise TimeoutError("the joiner says nothing")
        kind, value = results.recv()
        if kind == "done":
            process.join()
            return dict(value)


def kill_half_way(directory: Path, config: RunConfig, sources: int, ports: list[int], spare: int) -> float:
    """Start a joiner and kill it once half is there; return how far it was."""
    process, results = start_joiner(directory, config, sources, ports, spare)
    while True:
        if not results.poll(PATIENCE_S):
            raise TimeoutError("the joiner says nothing")
        kind, value = results.recv()
        if kind == "done":
            raise RuntimeError("the joiner was done before it could be killed")
        if value >= 0.5 and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return float(value)


async def receive_stream(size: int, count: int, start: Callable[[int], None]) -> float:
    """Return the seconds in which ``count`` - 1 messages come over a trio stream, as its own methods receive them."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    start(listener.socket.getsockname()[1])
    async with listener, await listener.accept() as stream:
        await fill(stream, memoryview(bytearray(size)))
        begun, missing = time.perf_counter(), size * (count - 1)
        while missing:
            missing -= len(await stream.receive_some(MIB))
        seconds = time.perf_counter() - begun
        await stream.send_all(b"done")
    return seconds


async def receive_all(size: int, count: int, start: Callable[[int], None]) -> float:
    """Return the seconds in which ``count`` - 1 messages come over a bare stream into memory of their own."""
    target = memoryview(bytearray(size * count))
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    start(listener.socket.getsockname()[1])
    async with listener, await listener.accept() as stream:
        await fill(stream, target[:size])
        begun = time.perf_counter()
        await fill(stream, target[size:])
        seconds = time.perf_counter() - begun
        await stream.send_all(b"done")
    return seconds


@contextmanager
def start_members(
    directory: Path, config: RunConfig, sources: int
) -> Iterator[tuple[list[int], Sequence[BaseProcess]]]:
    """Run the members within; yields their ports and their processes."""
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    ports: list[int] = []
    try:
        for index in range(sources):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=run_source, args=(directory, config, sources, index, theirs))
            process.start()
            processes.append(process)
            ports.append(ours.recv())
        yield ports, processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def measure_lot(directory: Path, config: RunConfig, sources: int, found: dict[str, Any]) -> None:
    """Bare streams and joiners in turn, from members that have just started; adds to what was found."""
    size = 4 * VECTORS * config.elements
    with start_members(directory, config, sources) as (ports, members):
        for is_first in (True, *[False] * (TURNS - 1)):
            found["stream_gb_s"].append(measure(receive_stream, send_raw, MESSAGE, 1 + size // MESSAGE))
            make_memory(directory, SPARE * size)
            found["socket_gb_s"].append(measure(receive_all, send_raw, MESSAGE, 1 + size // MESSAGE))
            place, used = directory / "joiner", read_cpu_s(members)
            joined = wait_done(*start_joiner(place, config, sources, ports, SPARE * size))
            found["joins"].append(joined | {"is_first": is_first, "members_cpu_s": read_cpu_s(members) - used})
            shutil.rmtree(place)


def measure_others(directory: Path, config: RunConfig, sources: int, found: dict[str, Any]) -> None:
    """One joiner that is killed half way and goes on, one without new memory; adds to what was found."""
    spare, place = SPARE * 4 * VECTORS * config.elements, directory / "killed"
    with start_members(directory, config, sources) as (ports, _):
        killed_at = kill_half_way(place, config, sources, ports, spare)
        resumed = wait_done(*start_joiner(place, config, sources, ports, spare))
        found["as found"] = wait_done(*start_joiner(directory / "as-found", config, sources, ports, 0))
    total = found["joins"][0]["received"]
    twice = max(0, round(killed_at * total) + resumed["received"] - total)
    found["resumed"] = resumed | {"killed_at": killed_at, "fetched_twice": twice}


def run_all(megabytes: int, sources: int) -> dict[str, Any]:
    """Start the members several times, measure, end them."""
    config, directory = make_config(megabytes, sources), Path(tempfile.mkdtemp(prefix="btard-state-"))
    found: dict[str, Any] = {"stream_gb_s": [], "socket_gb_s": [], "joins": []}
    try:
        write_run(directory, config, sources)
        for _ in range(LOTS):
            measure_lot(directory, config, sources, found)
        measure_others(directory, config, sources, found)
        return found
    finally:
        shutil.rmtree(directory)


def list_speeds(speeds: list[float]) -> str:
    """Describe speeds in GB/s by their median and one by one."""
    return f"{median(speeds):.2f} GB/s (median of {', '.join(f'{speed:.2f}' for speed in speeds)})"


def find_problems(found: Mapping[str, Any]) -> list[str]:
    """Return who got a wrong state, or one too slowly."""
    is_right = all(each["is_right"] for each in (*found["joins"], found["resumed"], found["as found"]))
    return [
        *([] if is_right else ["a joiner got another state than the seal names"]),
        *(
            f"{name}: {found[name]['ratio']:.3f} of a stream's speed; a third is asked for"
            for name in ("cold", "warm")
            if found[name]["ratio"] < LEAST
        ),
    ]


def main(
    megabytes: Annotated[int, Option(help="size of the state, in 10^6 bytes")] = 400,
    sources: Annotated[int, Option(help="peers that serve it")] = 4,
    json_path: Annotated[Path | None, Option("--json", help="write the result here")] = None,
) -> None:
    """Measure, print, and fail if the first joiner or the later ones get less than a third of a stream's speed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    found = run_all(megabytes, sources)
    stream, socket = median(found["stream_gb_s"]), median(found["socket_gb_s"])
    for name in ("stream", "socket"):
        print(f"{name:10} {list_speeds(found[f'{name}_gb_s'])}")
    print(f"new memory {list_speeds([each['memory_gb_s'] for each in found['joins']])}")
    print(f"joiners    {list_speeds([each['received'] / each['seconds'] / 1e9 for each in found['joins']])}")
    cold = [each for each in found["joins"] if each["is_first"]]
    warm = [each for each in found["joins"] if not each["is_first"]]
    last = [("resumed", [found["resumed"]]), ("as found", [found["as found"]])]
    for name, joins in [("cold", cold), ("warm", warm), *last]:
        speed = median(each["received"] / each["seconds"] / 1e9 for each in joins)
        found[name] = {"gb_s": speed, "ratio": speed / stream, "ratio_socket": speed / socket} | dict(joins[-1])
        print(
            f"{name:10} {speed:.2f} GB/s, {speed / stream:.2f} of stream, {speed / socket:.2f} of socket; "
            f"{joins[0]['received'] / 1e6:.0f} MB in {median(each['seconds'] for each in joins):.2f} s, "
            f"CPU {median(sum(each['cpu_s'].values()) for each in joins):.2f} s, "
            f"members {median(each.get('members_cpu_s', 0.0) for each in joins):.2f} s, "
            f"{sum(each['faults'] for each in joins)} faults"
        )
    resumed = found["resumed"]
    print(
        f"killed at {resumed['killed_at']:.0%}: {resumed['kept'] / 1e6:.0f} MB were there, "
        f"{resumed['fetched_twice'] / 1e6:.1f} MB fetched twice"
    )
    found |= describe("state")
    write(json_path, found)
    problems = find_problems(found)
    print("\n".join(problems or ["all is well"]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    typer.run(main)
