"""
A flood of false join tickets at one member of a swarm of real processes, and the same flood at a process beside it.

The flooder connects with a new key, shows false tickets until its link is cut, and comes back with the next key, at a
steady rate of keys. Three kinds of time take turns, a few seconds each, so that whatever else the machine does falls on
all of them:

    quiet     no flood
    sink      the flood at a process that answers as a member does and has nothing else to do
    member    the flood at the founder

What counts is the median of all rounds that lie within one kind of time, member over sink, also for each repetition by
itself (``paired_quartiles``). On a busy machine that varies; ``founder_cpu_ms_a_key`` does so less: the CPU time of the
founder beyond that of its rounds, which is taken from the time of the sink. Sink and member turn away whom
net/arrivals.py does not admit, let tickets through one by one, and cut a link at the same number of them, so a key
costs the flooder the same at both: ``flooder_cpu_s`` says whether it did. There are three kinds of false tickets:

    no-work     of keys without identity work, so that no attacker could afford more of them; refused in microseconds
    stale       of a round long ago, by which every member refuses them before it looks at anything else
    unsolved    of keys with identity work, which costs next to nothing in this run: each is taken, in the place of the
                last, and evaluated if a draw puts it first, at the rates of swarm/joining/ticket_desk.py

Exit status 1 if a round takes more than ``MOST_SLOWED`` times as long at the member as at the sink, in the median pair.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import structlog
import trio
import typer
from typer import Option

from benchmarks.processes import Peer, Swarm, run_swarm
from benchmarks.report import describe, write
from btard.cli.demo_plan import Settings
from btard.errors import BtardError
from btard.identity import Identity, JoinTicket, PeerId
from btard.identity.work import find_identity_nonce
from btard.net import Address, Hub, Terms, open_tcp
from btard.swarm.frames import Kind, Receipt
from btard.swarm.joining.ticket_desk import MAX_FALSE, MAX_VAIN, Reply
from btard.swarm.joining.turnstile import Turnstile
from btard.wire import decode, encode, parse_ticket

LOOPBACK = Address("127.0.0.1", 0)
MANY = 100_000
SETTLE_S = 0.5
"""What a flood may need to begin, and to be over: rounds in that time count for nothing."""
KINDS = "quiet", "sink", "member"
LAST = "last"
"""The order that ends a flooder."""
MOST_SLOWED = 1.10
"""How many times as long a round may take."""
IDENTITY_BITS = 4
"""What identity work costs where the flooder does it: a key every 50 ms must not load the machine."""


class TicketKind(StrEnum):
    """What is false about the tickets of a flood."""

    NO_WORK = "no-work"
    STALE = "stale"
    UNSOLVED = "unsolved"


@dataclass(frozen=True)
class Treatment:
    """What a member makes of a kind: its reply, the ticket at which it cuts the link, and the run that brings it so."""

    reply: Reply
    cut_at: int
    fields: Mapping[str, int]


TREATMENTS = {
    TicketKind.NO_WORK: Treatment(Reply.IDENTITY, MAX_FALSE, {}),
    TicketKind.STALE: Treatment(Reply.STALE, MAX_VAIN + 1, {"ticket_window": 1}),
    TicketKind.UNSOLVED: Treatment(Reply.TAKEN, MAX_VAIN + 2, {"identity_bits": IDENTITY_BITS}),
}


def make_ticket(kind: TicketKind, peer: PeerId, round_number: int, count: int) -> JoinTicket:
    """Return a key's next ticket of a kind."""
    if kind is TicketKind.UNSOLVED:
        return JoinTicket(peer, round_number, find_identity_nonce(peer, IDENTITY_BITS, 0, MANY) or 0, count)
    return JoinTicket(peer, 0 if kind is TicketKind.STALE else round_number, count, count)


@dataclass(frozen=True)
class Aim:
    """At whom a flood is aimed."""

    peer: PeerId
    address: Address
    terms: Terms
    kind: TicketKind


def run_sink(terms: Terms, seed: bytes, kind: TicketKind, ports: Connection) -> None:
    """Be the sink until killed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    trio.run(sink, Identity(seed), terms, TREATMENTS[kind], ports)


async def sink(identity: Identity, terms: Terms, treatment: Treatment, ports: Connection) -> None:
    """Answer every ticket as a member does, and cut whoever has shown as many as that cuts at."""
    seen: dict[PeerId, int] = {}
    async with open_tcp(identity, terms, LOOPBACK) as transport:
        hub = Hub(transport, identity.peer_id)
        turnstile = Turnstile(hub)

        async def answer(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            decode(body, JoinTicket)
            await turnstile.enter(peer)
            seen[peer] = seen.get(peer, 0) + 1
            if seen[peer] >= treatment.cut_at:
                hub.close(peer, "it showed too many false tickets")
            return encode(Receipt(int(treatment.reply))), None

        hub.serve[Kind.JOIN_TICKET] = answer
        ports.send(transport.address.port)
        await hub.run()


@dataclass
class Flood:
    """What one flooder did to one aim."""

    shown: list[int] = field(default_factory=list)
    """For each key, how many tickets it showed before its link was cut; 0 where it was turned away."""
    cpu_s: float = 0.0

    def describe(self) -> Mapping[str, Any]:
        """Return the counts."""
        counts = {"keys": len(self.shown), "turned_away": self.shown.count(0), "tickets": sum(self.shown)}
        return {**counts, "most_before_cut": max(self.shown, default=0), "flooder_cpu_s": round(self.cpu_s, 2)}


def run_flooder(aims: Mapping[str, Aim], keys_per_s: float, orders: Connection) -> None:
    """Flood whom the orders name, until the last one; then tell what came of it."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    orders.send("ready")
    floods = trio.run(follow, aims, keys_per_s, orders)
    orders.send({kind: flood.describe() for kind, flood in floods.items()})


async def follow(aims: Mapping[str, Aim], keys_per_s: float, orders: Connection) -> Mapping[str, Flood]:
    """Return what came of a steady rate of keys, each aimed at whom the newest order (kind, round) names."""
    floods = {kind: Flood() for kind in KINDS}
    kind, round_number, used = KINDS[0], 0, time.process_time()
    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        for number in range(MANY):
            await trio.sleep_until(begun + number / keys_per_s)
            if orders.poll():
                before, (kind, round_number) = kind, orders.recv()
                floods[before].cpu_s, used = floods[before].cpu_s + time.process_time() - used, time.process_time()
            if kind == LAST:
                break
            if kind in aims:
                nursery.start_soon(come_with_new_key, aims[kind], round_number, floods[kind].shown)
        nursery.cancel_scope.cancel()
    return floods


async def come_with_new_key(aim: Aim, round_number: int, shown: list[int]) -> None:
    """Show false tickets until the link is cut."""
    identity, count = Identity.generate(), 0
    async with open_tcp(identity, aim.terms, LOOPBACK) as transport, trio.open_nursery() as nursery:
        hub = Hub(transport, identity.peer_id)
        await nursery.start(hub.run)
        try:
            await hub.connect(aim.peer, aim.address)
            while count < MANY:
                body = encode(make_ticket(aim.kind, identity.peer_id, round_number, count))
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
    """The swarm, the flooder, and what was seen in each stretch of each kind of time."""

    swarm: Swarm
    orders: Connection
    rounds: dict[str, list[list[float]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Seconds of rounds."""
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """The founder's CPU time, and its rounds."""

    def play(self, kind: str, seconds: float) -> None:
        """Let one stretch of a kind of time pass."""
        founder = self.swarm.peers[0]
        self.orders.send((kind, founder.round - 1))
        self.swarm.listen_until(time.monotonic() + SETTLE_S)
        begun, used, before = time.time(), read_cpu_s(founder), founder.round
        self.swarm.listen_until(time.monotonic() + seconds - SETTLE_S)
        ended = time.time()
        self.cpu_s[kind] += read_cpu_s(founder) - used
        self.done[kind] += founder.round - before
        lasted: list[float] = []
        for peer in self.swarm.peers:
            times = [event["t"] for event in peer.of("round") if begun <= event["t"] <= ended]
            lasted += [later - earlier for earlier, later in pairwise(times)]
        self.rounds[kind].append(lasted)


def read_cpu_s(peer: Peer) -> float:
    """Return the CPU seconds that a peer's process has used."""
    assert peer.process is not None
    fields = Path(f"/proc/{peer.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def run_beside(run: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Yield our end of the pipe of a process that runs a function; it is killed afterwards."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(*arguments, theirs), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.kill()


def measure(settings: Settings, ticket: TicketKind, seconds: float, repeats: int, keys_per_s: float) -> dict[str, Any]:
    """Return the medians of all kinds of time."""
    seed = os.urandom(32)
    with run_swarm(settings) as swarm:
        config = swarm.plan.config
        terms = Terms(config.run_id, config.field_digests)
        founder = parse_ticket(swarm.plan.ticket)
        with run_beside(run_sink, terms, seed, ticket) as port:
            aims = {
                "sink": Aim(Identity(seed).peer_id, Address("127.0.0.1", port.recv()), terms, ticket),
                "member": Aim(config.founder_id, Address.parse(founder.bootstrap[0]), terms, ticket),
            }
            with run_beside(run_flooder, aims, keys_per_s) as orders:
                orders.recv()  # it is ready
                stage = Stage(swarm, orders)
                for _ in range(repeats):
                    for kind in KINDS:
                        stage.play(kind, seconds)
                orders.send((LAST, 0))
                keys = keys_per_s * repeats * (seconds - SETTLE_S)
                return {**summarise(stage, settings.peers, keys), "floods": orders.recv()}


def compute_key_cost_ms(stage: Stage, keys: float) -> float:
    """Return what the founder spends on one of the ``keys`` that came to it, as the sink has its rounds cost."""
    a_round_s = stage.cpu_s["sink"] / stage.done["sink"]
    return 1000 * (stage.cpu_s["member"] - a_round_s * stage.done["member"]) / keys


def summarise(stage: Stage, peers: int, keys: float) -> dict[str, Any]:
    """Return the medians of all kinds of time, and the quartiles of the repetitions, each of which is a pair."""
    lasted = {kind: [value for stretch in stage.rounds[kind] for value in stretch] for kind in KINDS}
    medians = {kind: median(values) for kind, values in lasted.items()}
    pairs = zip(stage.rounds["member"], stage.rounds["sink"], strict=True)
    paired = [median(member) / median(sink) for member, sink in pairs if member and sink]
    return {
        "median_round_s": {kind: round(value, 4) for kind, value in medians.items()},
        "rounds": {kind: len(values) // peers for kind, values in lasted.items()},
        "member_over_sink": round(medians["member"] / medians["sink"], 3),
        "paired_median": round(median(paired), 3),
        "paired_quartiles": [round(value, 3) for value in quantiles(paired, n=4)],
        "sink_over_quiet": round(medians["sink"] / medians["quiet"], 3),
        "founder_cpu_ms_a_round": {kind: round(1000 * stage.cpu_s[kind] / stage.done[kind], 1) for kind in KINDS},
        "founder_cpu_ms_a_key": round(compute_key_cost_ms(stage, keys), 2),
    }


def main(
    peers: Annotated[int, Option(min=2, help="members, real processes")] = 4,
    seconds: Annotated[float, Option(min=2.0, help="of each stretch of time")] = 4.0,
    repeats: Annotated[int, Option(min=2, help="stretches of each kind")] = 30,
    keys: Annotated[float, Option(min=0.1, help="new keys each second")] = 20.0,
    kind: Annotated[TicketKind, Option(help="what is false about the tickets")] = TicketKind.NO_WORK,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure what a flood of false tickets costs the rounds of a swarm that trains digits."""
    settings = Settings(peers=peers, byzantine=0, rounds=MANY, fields=TREATMENTS[kind].fields)
    result = {"kind": kind, **measure(settings, kind, seconds, repeats, keys), **describe("flood")}
    print(json.dumps(result, indent=2))
    write(path, result)
    if result["paired_median"] > MOST_SLOWED:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
