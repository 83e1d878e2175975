"""Builders for the DHT tests: real nodes on loopback, and strangers who sign whatever they like."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import time_ns

import trio

from btard.dht import Directory, open_directory
from btard.dht.datagram import ANYONE, NO_WORK, Header, Kind, body_of, node_id_of, read_header, sign_datagram
from btard.dht.messages import Request, decode_request
from btard.identity import Identity

RUN_ID = bytes(range(32))
LOOPBACK = "127.0.0.1"

Respond = Callable[[Request], bytes | None]


class Stranger:
    """A UDP socket with a valid identity that follows no rules."""

    def __init__(self, socket: trio.socket.SocketType, identity: Identity, nonce: int = NO_WORK.nonce) -> None:
        self.socket, self.identity, self.nonce = socket, identity, nonce
        self.node_id = node_id_of(RUN_ID, identity.peer_id, nonce)
        self.port = int(socket.getsockname()[1])
        self.requests = 0

    async def send(
        self,
        body: bytes,
        port: int,
        destination: bytes = ANYONE,
        kind: Kind = Kind.REQUEST,
        *,
        run_id: bytes = RUN_ID,
        message_id: bytes = bytes(16),
        age_ms: int = 0,
        signer: Identity | None = None,
    ) -> None:
        """Send one packet to a loopback port; ``signer`` may differ from the key the packet names."""
        sent_ms = time_ns() // 1_000_000 - age_ms
        header = Header(kind, destination, message_id, sent_ms, self.identity.peer_id, self.nonce)
        await self.socket.sendto(sign_datagram(signer or self.identity, run_id, header, body), (LOOPBACK, port))

    async def serve(self, respond: Respond) -> None:
        """Answer every request with the body that ``respond`` returns for it, or not at all."""
        while True:
            data, address = await self.socket.recvfrom(65536)
            header = read_header(RUN_ID, data)
            request = decode_request(body_of(data)) if header is not None else None
            if header is None or request is None or header.kind is not Kind.REQUEST:
                continue
            self.requests += 1
            body = respond(request)
            if body is not None:
                asker = node_id_of(RUN_ID, header.sender, header.identity_nonce)
                await self.send(body, address[1], asker, Kind.ANSWER, message_id=header.message_id)

    async def receive(self, seconds: float = 1.0) -> bytes | None:
        """Return the next packet, or ``None`` when none comes in time."""
        with trio.move_on_after(seconds):
            return (await self.socket.recvfrom(65536))[0]
        return None


@asynccontextmanager
async def open_stranger(identity: Identity | None = None, nonce: int = NO_WORK.nonce) -> AsyncIterator[Stranger]:
    """Open a stranger on a free loopback port."""
    socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with socket:
        await socket.bind((LOOPBACK, 0))
        yield Stranger(socket, identity or Identity.generate(), nonce)


@asynccontextmanager
async def open_swarm(size: int) -> AsyncIterator[tuple[list[Identity], list[Directory]]]:
    """Open nodes that know the first one's address only, announced under TCP ports 1001, 1002 and so on."""
    identities = [Identity.generate() for _ in range(size)]
    directories: list[Directory] = []
    async with AsyncExitStack() as stack:
        for identity in identities:
            bootstrap = [(LOOPBACK, directories[0].port)] if directories else []
            opened = open_directory(identity, RUN_ID, (LOOPBACK, 0), bootstrap, state_dir=None)
            directories.append(await stack.enter_async_context(opened))
        async with trio.open_nursery() as nursery:
            for index, directory in enumerate(directories):
                nursery.start_soon(directory.announce, [(LOOPBACK, 1001 + index)])
        yield identities, directories


async def wait_until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Return once ``condition`` holds; fail after ``seconds`` of the real clock."""
    with trio.fail_after(seconds):
        while not await condition():
            await trio.sleep(0.02)  # the network's time is not ours: real UDP cannot run on a virtual clock


async def all_find_all(identities: list[Identity], directories: list[Directory]) -> bool:
    """Return whether every node finds every peer under the port it announced."""
    missing = 0

    async def look(directory: Directory) -> None:
        nonlocal missing
        for index, identity in enumerate(identities):
            contact = await directory.find(identity.peer_id)
            missing += contact is None or contact.addresses != ((LOOPBACK, 1001 + index),)

    async with trio.open_nursery() as nursery:
        for directory in directories:
            nursery.start_soon(look, directory)
    return not missing
