"""
How fast is an authenticated link? Bulk messages between two processes on loopback, beside a bare trio stream.

Prints GB/s (10^9 bytes) of both and their ratio; the link encrypts, authenticates and decrypts into one buffer.
"""

import argparse
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing.connection import Connection

import structlog
import trio

from btard.identity import Identity
from btard.net import Address, Terms, open_tcp

TERMS = Terms(b"benchmark")
LOOPBACK = Address("127.0.0.1", 0)
MIB = 1 << 20

Sender = Callable[[int, int, int], Awaitable[None]]


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


def measure(receive: Callable[..., Awaitable[float]], send: Sender, size: int, count: int) -> float:
    """Return GB/s from a second process to this one."""
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=run_sender, args=(send, size, count, theirs))
    process.start()
    seconds = trio.run(partial(receive, size, count, ours.send))
    process.join()
    return size * (count - 1) / seconds / 1e9


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, help="MiB in one message (default 16)")
    parser.add_argument("--count", type=int, default=100, help="messages in one run (default 100)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, alternating (default 3)")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    for run in range(options.runs):
        raw = measure(receive_raw, send_raw, options.size * MIB, options.count)
        link = measure(receive_over_link, send_over_link, options.size * MIB, options.count)
        print(f"run {run + 1}: link {link:.2f} GB/s, bare stream {raw:.2f} GB/s, ratio {link / raw:.2f}")


if __name__ == "__main__":
    main()
