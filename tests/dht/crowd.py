"""Many nodes on many networks, some of them hostile; used by the tests and by `benchmarks.dht`."""

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import trio
from kademlia.node import Node

from btard.dht import Directory, contact_key, open_directory, sign_contact
from btard.dht.datagram import NO_WORK, node_id_of
from btard.dht.messages import (
    BUCKET_SIZE,
    Answer,
    Entries,
    FindNode,
    FindRecord,
    FoundNodes,
    FoundRecord,
    Ping,
    Request,
    Stored,
)
from btard.dht.protocol import Address
from btard.dht.server import Network, wall_clock_ms
from btard.identity import Identity

RUN_ID = bytes(range(32))
FAR_FUTURE_MS = 60_000


class Conduct(Enum):
    """What a node does with questions; every one of them answers pings and asks like an honest node."""

    HONEST = "honest"
    LYING = "lying"
    """Names sixteen nodes that do not exist, near the key asked for, and gives records that it forged."""
    SILENT = "silent"
    """Answers pings only."""
    SQUATTING = "squatting"
    """Sits near a victim's key, says that it stores, gives no record, and names only its accomplices."""


@dataclass
class Member:
    """One node of the crowd, reachable (its record says) at ``address``; ``tcp_port`` may change."""

    identity: Identity
    conduct: Conduct
    host: str
    tcp_port: int = 4000
    directory: Directory = field(init=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def is_honest(self) -> bool:
        """Whether it follows the rules."""
        return self.conduct is Conduct.HONEST

    @property
    def address(self) -> Address:
        """What its contact record says."""
        return (self.host, self.tcp_port)

    @property
    def node_address(self) -> Address:
        """Where its DHT node listens."""
        return (self.host, self.directory.port)

    async def move(self, tcp_port: int) -> None:
        """Announce another address: whoever finds it has heard of us since."""
        self.tcp_port = tcp_port
        await self.directory.announce([self.address])

    async def finds(self, other: "Member") -> bool:
        """Return whether a lookup gives the other's true address."""
        contact = await self.directory.find(other.identity.peer_id)
        return contact is not None and contact.addresses == (other.address,)


def host_in_network(number: int) -> str:
    """Return a loopback address in the /24 with this number, one that counts as a block."""
    return f"127.{1 + number // 250}.{1 + number % 250}.1"


def identity_near(key: bytes, bits: int, source: random.Random) -> Identity:
    """Return an identity whose node id shares ``bits`` leading bits with ``key``; takes 2^bits draws."""
    wanted = int.from_bytes(key, "big") >> (160 - bits)
    while True:
        identity = Identity(source.randbytes(32))
        if int.from_bytes(node_id_of(RUN_ID, identity.peer_id, NO_WORK.nonce), "big") >> (160 - bits) == wanted:
            return identity


@asynccontextmanager
async def open_crowd(
    members: Sequence[Member], network: Network, bootstrap: Sequence[Address] | None = None
) -> AsyncIterator[Sequence[Member]]:
    """Open the nodes, all knowing the first one's address (or ``bootstrap``), and announce them all.

    A member leaves without a word when its ``scope`` is cancelled.
    """
    async with trio.open_nursery() as nursery:
        for member in members:
            doors = (
                bootstrap if bootstrap is not None else [one.node_address for one in members[:1] if one is not member]
            )
            await nursery.start(_live, member, network, doors)
        accomplices = [one for one in members if one.conduct is Conduct.SQUATTING]
        for member in members:
            if not member.is_honest:
                _corrupt(member, accomplices)
        async with trio.open_nursery() as announcing:
            for member in members:
                announcing.start_soon(member.move, member.tcp_port)
        yield members
        nursery.cancel_scope.cancel()


async def _live(
    member: Member, network: Network, bootstrap: Sequence[Address], *, task_status: trio.TaskStatus[None]
) -> None:
    home = (member.host, 0)
    with member.scope:
        opened = open_directory(member.identity, RUN_ID, home, bootstrap, state_dir=None, network=network)
        async with opened as member.directory:
            task_status.started()
            await trio.sleep_forever()


def _corrupt(member: Member, accomplices: Iterable[Member]) -> None:
    """Replace a node's answers by those of its conduct."""
    protocol = member.directory._server.protocol
    honest_answer, honest_send = protocol._answer, protocol._send
    gang = [(node_id_of(RUN_ID, one.identity.peer_id, NO_WORK.nonce), *one.node_address) for one in accomplices]
    choose = {
        Conduct.LYING: partial(_lie, member.identity, random.Random(member.identity.peer_id)),
        Conduct.SILENT: lambda request: None,
        Conduct.SQUATTING: partial(_squat, gang),
    }[member.conduct]

    def answer(request: Request, asker: Node) -> Answer | None:
        return honest_answer(request, asker) if isinstance(request, Ping) else choose(request)

    def send(*words: Any) -> None:
        if words[-1] is not None:
            honest_send(*words)

    protocol._answer = answer  # type: ignore[method-assign, assignment]
    protocol._send = send  # type: ignore[method-assign]


def _lie(liar: Identity, chance: random.Random, request: Request) -> Answer:
    match request:
        case FindNode(key):
            return FoundNodes(_invent_nodes(key, chance))
        case FindRecord(key):
            return FoundRecord(_forge_record(liar), _invent_nodes(key, chance))
    return Stored(True)


def _squat(gang: Sequence[tuple[bytes, str, int]], request: Request) -> Answer:
    match request:
        case FindNode(key):
            return FoundNodes(_nearest(gang, key))
        case FindRecord(key):
            return FoundRecord(None, _nearest(gang, key))
    return Stored(True)


def _invent_nodes(key: bytes, source: random.Random) -> Entries:
    return tuple((key[:10] + source.randbytes(10), host_in_network(source.randrange(60_000)), 9) for _ in range(16))


def _forge_record(thief: Identity) -> bytes:
    return sign_contact(thief, RUN_ID, [("192.0.2.66", 6)], 2**62, wall_clock_ms() + FAR_FUTURE_MS)


def _nearest(gang: Sequence[tuple[bytes, str, int]], key: bytes) -> Entries:
    target = int.from_bytes(key, "big")
    return tuple(sorted(gang, key=lambda entry: int.from_bytes(entry[0], "big") ^ target)[:BUCKET_SIZE])


def plan_crowd(honest: int, hostile: int, seed: int = 0) -> list[Member]:
    """Return the members of a crowd, the first one honest, the hostile ones a third of each kind.

    Every node has a network of its own, but squatters have two together and sit around the first one's key.
    """
    source = random.Random(seed)
    members = [Member(Identity(source.randbytes(32)), Conduct.HONEST, host_in_network(i)) for i in range(honest)]
    victim = contact_key(RUN_ID, members[0].identity.peer_id)
    for number in range(hostile):
        conduct = (Conduct.LYING, Conduct.SILENT, Conduct.SQUATTING)[number % 3]
        if conduct is Conduct.SQUATTING:
            identity, host = identity_near(victim, 9, source), f"127.200.{number % 2}.{number + 1}"
        else:
            identity, host = Identity(source.randbytes(32)), host_in_network(honest + number)
        members.append(Member(identity, conduct, host))
    return members


async def count_finds(seekers: Sequence[Member], sought: Sequence[Member]) -> tuple[int, int]:
    """Return how many lookups, of all of ``sought`` by each of ``seekers``, gave the truth, and how many there were."""
    found = 0

    async def seek(seeker: Member) -> None:
        nonlocal found
        for member in sought:
            is_found = await seeker.finds(member)
            found += is_found

    async with trio.open_nursery() as nursery:
        for seeker in seekers:
            nursery.start_soon(seek, seeker)
    return found, len(seekers) * len(sought)
