"""
How fast is an authenticated link? Bulk messages between two processes on loopback, beside a bare trio stream.

GB/s (10^9 bytes) of both, in turns, and their ratio; the link encrypts, authenticates and decrypts into one buffer.
"""

import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer
from typer import Option

from benchmarks.report import Result, compute_median, compute_ratios, describe, format_table, shorten, write
from btard.identity import Identity
from btard.net import Address, Terms, open_tcp

TERMS = Terms(b"benchmark")
LOOPBACK = Address("127.0.0.1", 0)
MIB = 1 << 20

Sender = Callable[[int, int, int], Awaitable[None]]
Receiver = Callable[[int, int, Callable[[int], None]], Awaitable[float]]


async def send_over_link(port: int, size: int, count: int) -> None:
    """Send ``count`` bulk messages of ``size`` bytes to the listener at ``port``."""
    payload = memoryview(bytearray(size))
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as transport:
        link = await transport.connect(Address("127.0.0.1", port), None)
        for _ in range(count):
            await link.send(1, b"", payload)
        await link.receive(lambda kind, head, size: None)


async def send_raw(port: int, size: int, count: int) -> None:
    """Send the same bytes over a bare stream."""
    payload = memoryview(bytearray(size))
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(count):
            await stream.send_all(payload)
        await stream.receive_some()


async def receive_over_link(size: int, count: int, start: Callable[[int], None]) -> float:
    """Return the seconds from the first to the last of ``count`` messages, the first not counted."""
    target = memoryview(bytearray(size))
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as transport:
        start(transport.address.port)
        link = await transport.accept()
        await link.receive(lambda kind, head, size: target)
        begun = time.perf_counter()
        for _ in range(count - 1):
            await link.receive(lambda kind, head, size: target)
        seconds = time.perf_counter() - begun
        await link.send(1, b"done")
    return seconds


async def receive_raw(size: int, count: int, start: Callable[[int], None]) -> float:
    """Do the same over a bare stream."""
    target = memoryview(bytearray(size))
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    start(listener.socket.getsockname()[1])
    async with listener, await listener.accept() as stream:
        await fill(stream, target)
        begun = time.perf_counter()
        for _ in range(count - 1):
            await fill(stream, target)
        seconds = time.perf_counter() - begun
        await stream.send_all(b"done")
    return seconds


async def fill(stream: trio.SocketStream, target: memoryview) -> None:
    """Read exactly as many bytes as ``target`` holds."""
    position = 0
    while position < len(target):
        position += await stream.socket.recv_into(target[position : position + MIB])


def run_sender(send: Sender, size: int, count: int, ports: Connection) -> None:
    """Be the sending process: wait for the port, then send."""
    trio.run(send, ports.recv(), size, count)


def measure(receive: Receiver, send: Sender, size: int, count: int) -> float:
    """Return GB/s from a second process to this one."""
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=run_sender, args=(send, size, count, theirs))
    process.start()
    seconds = trio.run(partial(receive, size, count, ours.send))
    process.join()
    return size * (count - 1) / seconds / 1e9


def sum_up(speeds: Mapping[str, Sequence[float]]) -> Result:
    """Return GB/s of both, and the ratio of speeds run by run."""
    results = {
        name: {
            "median_gb_s": round(compute_median(seen), 3),
            "min_gb_s": round(min(seen), 3),
            "max_gb_s": round(max(seen), 3),
        }
        for name, seen in speeds.items()
    }
    return {"results": results, "throughput": {"bare": compute_ratios(speeds["link"], speeds["bare"])}}


def format_result(result: Result) -> str:
    """Return the result as Markdown."""
    rows = [[name, *figures.values()] for name, figures in result["results"].items()]
    lines = [f"`{result['command']}`  ", f"{result['machine']}, commit {shorten(result['commit'])}", ""]
    lines += [format_table(["", "median GB/s", "min", "max"], rows), ""]
    ratios = [["bare", *result["throughput"]["bare"].values()]]
    return "\n".join([*lines, format_table(["speed of the link over", "median", "min", "max"], ratios)])


def main(
    size: Annotated[int, Option(min=1, help="MiB in one message")] = 16,
    count: Annotated[int, Option(min=2, help="messages in one run; the first one is not counted")] = 100,
    runs: Annotated[int, Option(min=1, help="runs of each, in turns")] = 3,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure bulk messages over an authenticated link between two processes, beside a bare stream in turns."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    result = describe("channel") | {"message_mib": size, "messages": count}
    sides: dict[str, tuple[Receiver, Sender]] = {
        "bare": (receive_raw, send_raw),
        "link": (receive_over_link, send_over_link),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(runs):
        for name, (receive, send) in sides.items():
            speeds[name].append(measure(receive, send, size * MIB, count))
        said = ", ".join(f"{name} {seen[-1]:.2f} GB/s" for name, seen in speeds.items())
        print(f"run {run + 1} of {runs}: {said}", file=sys.stderr, flush=True)
    result |= sum_up(speeds)
    write(path, result)
    print(format_result(result))


if __name__ == "__main__":
    typer.run(main)
