"""
The target: honest peers of a small swarm over TCP in one process, which train while others throw bytes at one of them.

Every half second a line of JSON on standard output says how they are; a line on standard input starts
the next swarm, the end of the input ends the process. What should not happen goes to standard error.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog
import torch
import trio
from tests.fuzz.delays import Delays

from btard.errors import BtardError
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Address, Hub, Limits, Pace, Terms, open_tcp
from btard.net.frame_reader import FrameReader
from btard.net.frames import FrameType
from btard.net.tcp import TcpTransport
from btard.net.tcp_link import TcpLink
from btard.rules.config import RunConfig
from btard.sim.swarm import StaticDirectory
from btard.sim.tasks import LinearTask
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Event, RoundDone
from btard.swarm.peer import Membership, run_peer

HONEST = 3
"""Peers of the target; the last member of the roster is the attacker."""
VICTIM = 1
LOOPBACK = Address("127.0.0.1", 0)
STATUS_SECONDS = 0.5
TICK_SECONDS = 0.05
DELAY_SECONDS = 3.0  # Delta: a busy machine keeps it, and a violation shows in the figures
COUNTED = frozenset({FrameType.CONTROL, FrameType.BULK})  # a message counts once, in however many frames it comes
PAUSE_SECONDS = 0.03  # before each piece of work, so that the rounds leave the core to the attack
PAGE = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


def make_identities(epoch: int) -> list[Identity]:
    """Return the keys of the members of a swarm, the attacker's last."""
    return [Identity(digest(Context.EXPAND, b"fuzz", f"{epoch}/{index}".encode())) for index in range(HONEST + 1)]


def make_config(epoch: int) -> RunConfig:
    """Return the configuration of a swarm; it never ends by itself."""
    return RunConfig(
        founder=make_identities(epoch)[0].peer_id.hex(),
        genesis_size=HONEST + 1,
        rounds=1_000_000,
        seed=epoch,
        elements=LinearTask().elements,
        chunk_size=8,
        tau=2.0,
        delta=20.0,
        delay_s=DELAY_SECONDS,
    )


class PacedCompute:
    """Runs work in the event loop after a pause."""

    takes_time = True

    async def run(self, work: Callable[[], T]) -> T:
        """Return ``work()``."""
        await trio.sleep(PAUSE_SECONDS)
        return work()


class Target:
    """One swarm after another, and what it has come to."""

    def __init__(self, directory: Path) -> None:
        self.rounds = Counter[int]()
        self.violations: list[str] = []
        self._directory = directory
        self._honest: set[PeerId] = set()
        self._attacker: PeerId | None = None
        self._hubs: list[Hub] = []
        self._frames = Counter[str]()
        self._epoch = 0
        self._longest_stall = self._slowest_round = 0.0
        self._delays = Delays()

    def watch_bytes(self) -> None:
        """Count what of the attack is really read: frames of links to others than our own peers, and connections."""
        take, answer, offer = FrameReader._take_frame, TcpTransport._answer, TcpTransport._offer

        def take_frame(reader: FrameReader, frame_type: FrameType, *arguments: Any) -> Any:
            if reader.peer not in self._honest and frame_type in COUNTED:
                self._frames["member" if reader.peer == self._attacker else "stranger"] += 1
            return take(reader, frame_type, *arguments)

        async def answer_one(transport: TcpTransport, *arguments: Any) -> None:
            self._frames["connection"] += 1
            await answer(transport, *arguments)

        async def offer_one(transport: TcpTransport, link: TcpLink) -> None:
            self._frames["link"] += 1
            await offer(transport, link)

        FrameReader._take_frame = take_frame  # type: ignore[method-assign]
        TcpTransport._answer = answer_one  # type: ignore[method-assign]
        TcpTransport._offer = offer_one  # type: ignore[method-assign]
        self._delays.watch()

    def status(self) -> Mapping[str, object]:
        """Return how the swarm is; ``rss`` in bytes, times in seconds, the worst ones since the last call."""
        stall, self._longest_stall = self._longest_stall, 0.0
        return {
            "epoch": self._epoch,
            "rounds": min(self.rounds[index] for index in range(HONEST)),
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
            "frames": self._frames,
            "links": len(self._hubs[VICTIM].connected) if len(self._hubs) > VICTIM else 0,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "time": time.monotonic(),
            "cpu": time.process_time(),
            "load": os.getloadavg()[0],
            "stall": stall,
            "delay": self._delays.take_worst(),
            "slowest_round": self._slowest_round,
            "violations": self.violations,
        }

    async def watch_loop(self) -> None:
        """Remember for how long the event loop stood still: beyond Delta the threat model promises nothing."""
        while True:
            before = trio.current_time()
            await trio.sleep(TICK_SECONDS)
            self._longest_stall = max(self._longest_stall, trio.current_time() - before - TICK_SECONDS)

    async def run(self, commands: trio.abc.ReceiveStream) -> None:
        """Run swarms until the commands end."""
        for self._epoch in itertools.count():
            async with trio.open_nursery() as nursery:
                await self._start(nursery)
                if not await commands.receive_some(1):
                    nursery.cancel_scope.cancel()
                    return
                nursery.cancel_scope.cancel()

    async def _start(self, nursery: trio.Nursery) -> None:
        config, identities = make_config(self._epoch), make_identities(self._epoch)
        self._honest = {identity.peer_id for identity in identities[:HONEST]}
        self._attacker = identities[HONEST].peer_id
        self._delays.restart(self._honest)
        self._hubs.clear()
        addresses: dict[PeerId, Address] = {}
        for index, identity in enumerate(identities[:HONEST]):
            await nursery.start(self._run_peer, index, identity, config, addresses)
        tell({"epoch": self._epoch, "ports": [addresses[item.peer_id].port for item in identities[:HONEST]]})

    async def _run_peer(
        self,
        index: int,
        identity: Identity,
        config: RunConfig,
        addresses: dict[PeerId, Address],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        data_dir = self._directory / f"{self._epoch}-{index}"
        data_dir.mkdir()
        terms = Terms(config.run_id, config.field_digests)
        async with open_tcp(identity, terms, LOOPBACK) as tcp, trio.open_nursery() as nursery:
            tcp.arrivals._total = Pace(1e4, 10**6)  # else few of the throwers' links would come in
            hub = Hub(tcp, identity.peer_id, Limits(stranger_frames_per_s=1e5, stranger_frames_at_once=10**6))
            self._hubs.append(hub)
            addresses[identity.peer_id] = tcp.address
            await nursery.start(hub.run)
            task_status.started()
            member = make_member(identity, config, data_dir, lambda event: self._watch(index, event))
            try:
                if index:
                    await hub.connect(config.founder_id, addresses[config.founder_id])
                await run_peer(member, hub, StaticDirectory(addresses))
                self.violations.append(f"peer {index} ended before its run")
            except BtardError as error:
                self.violations.append(f"peer {index} left: {error!r}")
            nursery.cancel_scope.cancel()

    def _watch(self, index: int, event: Event) -> None:
        if isinstance(event, RoundDone):
            self.rounds[index] += 1
            self._slowest_round = max(self._slowest_round, event.wall_s)
        elif isinstance(event, Departed) and event.peer in self._honest:
            self.violations.append(f"an honest peer departed: {event}")


def make_member(
    identity: Identity,
    config: RunConfig,
    data_dir: Path,
    observe: Callable[[Event], None],
) -> Membership:
    """Return how a peer takes part in the swarm."""
    return Membership(identity, config, LinearTask(), data_dir, Conduct(), PacedCompute(), observe, gradient_ms=200)


def tell(line: Mapping[str, object]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def report(target: Target) -> None:
    """Print the status again and again."""
    while True:
        await trio.sleep(STATUS_SECONDS)
        tell(target.status())


async def serve(directory: Path) -> None:
    """Be the target until the standard input ends."""
    target = Target(directory)
    target.watch_bytes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report, target)
        nursery.start_soon(target.watch_loop)
        await target.run(trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())))
        tell(target.status())
        nursery.cancel_scope.cancel()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.set_num_threads(1)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    with tempfile.TemporaryDirectory(prefix="btard-fuzz-") as directory:
        trio.run(serve, Path(directory))


if __name__ == "__main__":
    main()
