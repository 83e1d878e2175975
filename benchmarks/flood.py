"""
A flood of false join tickets at one member of a swarm of real processes, and the same flood at a process beside it.

The flooder connects with a new key, shows false tickets until its link is cut, and comes back with the next key, at a
steady rate of keys. Three kinds of time take turns, so that whatever else the machine does falls on all of them:

    quiet     no flood
    sink      the flood at a process that answers as a member does and has nothing else to do
    member    the flood at the founder

What counts is the median of all rounds that lie within one kind of time, member over sink. The keys have no identity
work, so that no attacker could afford more of them; such a ticket is refused in microseconds. Tickets that reach the
evaluation are bounded for an address block (``BLOCK_PER_SECOND`` of swarm/joining/ticket_desk.py), whoever sends them.
"""

import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import structlog
import trio
import typer
from typer import Option

from benchmarks.processes import Swarm, run_swarm
from btard.cli.demo_plan import Settings
from btard.errors import BtardError
from btard.identity import Identity, JoinTicket, PeerId
from btard.net import Address, Hub, Terms, open_tcp
from btard.swarm.frames import Kind, Receipt
from btard.swarm.joining.ticket_desk import MAX_FALSE, Reply
from btard.wire import decode, encode, parse_ticket

LOOPBACK = Address("127.0.0.1", 0)
MANY = 100_000
SETTLE_S = 1.0
"""What a flood may need to begin, and to be over: rounds in that time count for nothing."""
KINDS = "quiet", "sink", "member"


@dataclass(frozen=True)
class Aim:
    """At whom a flood is aimed, and how many keys come each second."""

    peer: PeerId
    address: Address
    terms: Terms
    keys_per_s: float


def run_sink(terms: Terms, seed: bytes, ports: Connection) -> None:
    """Be the sink until killed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    trio.run(sink, Identity(seed), terms, ports)


async def sink(identity: Identity, terms: Terms, ports: Connection) -> None:
    """Refuse every ticket, and cut whoever has shown as many as a member bears."""
    seen: dict[PeerId, int] = {}
    async with open_tcp(identity, terms, LOOPBACK) as transport:
        hub = Hub(transport, identity.peer_id)

        async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            decode(body, JoinTicket)
            seen[peer] = seen.get(peer, 0) + 1
            if seen[peer] >= MAX_FALSE:
                hub.close(peer, "it showed too many false tickets")
            return encode(Receipt(int(Reply.IDENTITY))), None

        hub.serve[Kind.JOIN_TICKET] = refuse
        ports.send(transport.address.port)
        await hub.run()


def run_flood(aim: Aim, round_number: int, seconds: float, results: Connection) -> None:
    """Flood for some seconds, then tell what came of it."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    results.send("ready")
    results.send(trio.run(flood, aim, round_number, seconds))


async def flood(aim: Aim, round_number: int, seconds: float) -> Mapping[str, Any]:
    """Return how many keys came, and after how many tickets their links were cut."""
    shown: list[int] = []
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            begun = trio.current_time()
            for number in range(MANY):
                await trio.sleep_until(begun + number / aim.keys_per_s)
                nursery.start_soon(come_with_new_key, aim, round_number, shown)
    return {"keys": len(shown), "tickets": sum(shown), "most_before_cut": max(shown, default=0)}


async def come_with_new_key(aim: Aim, round_number: int, shown: list[int]) -> None:
    """Show false tickets until the link is cut."""
    identity, count = Identity.generate(), 0
    async with open_tcp(identity, aim.terms, LOOPBACK) as transport, trio.open_nursery() as nursery:
        hub = Hub(transport, identity.peer_id)
        await nursery.start(hub.run)
        try:
            await hub.connect(aim.peer, aim.address)
            while count < MANY:
                body = encode(JoinTicket(identity.peer_id, round_number, count, count))
                count += 1
                await hub.request(aim.peer, Kind.JOIN_TICKET, body, timeout_s=10.0)
                if not hub.is_connected(aim.peer):
                    break
        except BtardError:
            pass
        shown.append(count)
        nursery.cancel_scope.cancel()


@dataclass
class Stage:
    """The swarm, the sink, and the rounds that lay in each kind of time."""

    swarm: Swarm
    aims: Mapping[str, Aim]
    rounds: dict[str, list[float]]
    floods: dict[str, list[Mapping[str, Any]]]

    def play(self, kind: str, seconds: float) -> None:
        """Let one stretch of a kind of time pass."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = None
        if kind in self.aims:
            newest = self.swarm.peers[0].round
            process = context.Process(target=run_flood, args=(self.aims[kind], newest - 1, seconds, theirs))
            process.start()
            ours.recv()  # it begins
        begun = time.time() + SETTLE_S
        self.swarm.listen_until(time.monotonic() + seconds - 2 * SETTLE_S)
        ended = time.time()
        if process:
            self.floods[kind].append(ours.recv())
            process.join()
        self.swarm.listen_until(time.monotonic() + SETTLE_S)
        for peer in self.swarm.peers:
            times = [event["t"] for event in peer.of("round") if begun <= event["t"] <= ended]
            self.rounds[kind] += [later - earlier for earlier, later in pairwise(times)]


def measure(settings: Settings, seconds: float, repeats: int, keys_per_s: float) -> dict[str, Any]:
    """Return the medians of all kinds of time."""
    context = multiprocessing.get_context("spawn")
    with run_swarm(settings) as swarm:
        config = swarm.plan.config
        terms = Terms(config.run_id, config.field_digests)
        ours, theirs = context.Pipe()
        seed = os.urandom(32)
        process = context.Process(target=run_sink, args=(terms, seed, theirs), daemon=True)
        process.start()
        sink_at = Address("127.0.0.1", ours.recv())
        founder = parse_ticket(swarm.plan.ticket)
        aims = {
            "sink": Aim(Identity(seed).peer_id, sink_at, terms, keys_per_s),
            "member": Aim(config.founder_id, Address.parse(founder.bootstrap[0]), terms, keys_per_s),
        }
        stage = Stage(swarm, aims, {kind: [] for kind in KINDS}, {kind: [] for kind in aims})
        for _ in range(repeats):
            for kind in KINDS:
                stage.play(kind, seconds)
        process.kill()
    medians = {kind: median(stage.rounds[kind]) for kind in KINDS}
    return {
        "median_round_s": {kind: round(value, 4) for kind, value in medians.items()},
        "rounds": {kind: len(values) // settings.peers for kind, values in stage.rounds.items()},
        "member_over_sink": round(medians["member"] / medians["sink"], 3),
        "sink_over_quiet": round(medians["sink"] / medians["quiet"], 3),
        "floods": stage.floods,
    }


def main(
    peers: Annotated[int, Option(min=2, help="members, real processes")] = 4,
    seconds: Annotated[float, Option(min=5.0, help="of each stretch of time")] = 15.0,
    repeats: Annotated[int, Option(min=1, help="stretches of each kind")] = 3,
    keys: Annotated[float, Option(min=0.1, help="new keys each second")] = 20.0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure what a flood of false tickets costs the rounds of a swarm that trains digits."""
    result = measure(Settings(peers=peers, byzantine=0, rounds=MANY), seconds, repeats, keys)
    result["command"] = " ".join(["python -m benchmarks.flood", *sys.argv[1:]])
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps(result, indent=2))
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
