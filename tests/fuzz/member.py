"""A thrower with a place in the run: a real peer whose hub also sends what no honest peer would."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio
from tests.fuzz.generate import Generator, is_chatter
from tests.fuzz.nonsense import Nonsense
from tests.fuzz.target import HONEST, LOOPBACK, VICTIM, make_config, make_identities, make_member

from btard.errors import BtardError, NetworkError
from btard.identity import PeerId
from btard.net import MAX_CONTROL, Address, Hub, Terms, open_tcp
from btard.net.session import Session
from btard.rules.roster import Roster
from btard.sim.swarm import StaticDirectory
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import Kind
from btard.swarm.peer import run_peer

WARM_ROUNDS = 2
BATCH = 100
"""Messages that a link survives, before one that ends it: whatever is written after that one is lost."""
END_SECONDS = 0.2
RETRY_SECONDS = 0.01


class Member:
    """The attacker of one swarm; ``count`` is told of every message thrown whether it is well-formed."""

    def __init__(
        self, generator: Generator, epoch: int, ports: list[int], directory: Path, count: Callable[..., None]
    ) -> None:
        self._count = count
        self._generator = generator
        self._config, identities = make_config(epoch), make_identities(epoch)
        self._identity, roster = identities[HONEST], Roster.of([item.peer_id for item in identities])
        self._nonsense = Nonsense(generator, self._identity, self._config.run_id, roster.digest)
        self._victim = identities[VICTIM].peer_id
        self._addresses = {
            item.peer_id: Address("127.0.0.1", port) for item, port in zip(identities[:HONEST], ports, strict=True)
        }
        self._data_dir = directory / str(epoch)
        self.end = ""

    async def run(self) -> None:
        """Take part and throw until the swarm has enough of us."""
        self._data_dir.mkdir()
        terms = Terms(self._config.run_id, self._config.field_digests)
        async with open_tcp(self._identity, terms, LOOPBACK) as tcp, trio.open_nursery() as nursery:
            hub = Hub(tcp, self._identity.peer_id)
            await nursery.start(hub.run)
            nursery.start_soon(self._throw, hub)
            member = make_member(self._identity, self._config, self._data_dir, self._watch)
            try:
                await hub.connect(self._config.founder_id, self._addresses[self._config.founder_id])
                await run_peer(member, hub, StaticDirectory(self._addresses))
            except BtardError as error:
                self.end = type(error).__name__
            nursery.cancel_scope.cancel()

    def _watch(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            self._nonsense.round, self._nonsense.attempt = event.round, event.result.attempt

    async def _throw(self, hub: Hub) -> None:
        while self._nonsense.round < WARM_ROUNDS:
            await trio.sleep(0.05)
        listen_to(hub, self._generator)
        while True:
            session = await self._find_session(hub)
            with suppress(NetworkError), trio.move_on_after(1):
                for _ in range(BATCH):
                    self._send(session, *self._nonsense.make_bearable())
                await self._throw_bulk(session)
                await session.flush()
                self._send(session, *self._nonsense.make_lethal())
                await session.flush()
                await self._await_end(session)

    async def _find_session(self, hub: Hub) -> Session:
        while (session := hub._sessions.get(self._victim)) is None:
            with suppress(BtardError):
                await hub.connect(self._victim, self._addresses[self._victim])
                continue
            await trio.sleep(RETRY_SECONDS)
        return session

    async def _await_end(self, session: Session) -> None:
        """Wait for the victim to end the link, lest what is written meanwhile is lost; some bytes it survives."""
        with trio.move_on_after(END_SECONDS):
            await session._ended.wait()

    def _send(self, session: Session, kind: int, head: bytes) -> None:
        session.send(kind, head[:MAX_CONTROL])
        self._count(is_chatter=is_chatter(kind, head) or self._generator.has_heard(head))

    async def _throw_bulk(self, session: Session) -> None:
        kind, head, payload = self._nonsense.make_bulk()
        self._count(is_chatter=is_chatter(kind, head))
        await session.send_bulk(kind, head, payload)


def listen_to(hub: Hub, generator: Generator) -> None:
    """Take what honest peers say to us into the corpus, before it is handled as ever."""

    def listen(handler: Callable[[PeerId, bytes], None]) -> Callable[[PeerId, bytes], None]:
        def record(peer: PeerId, head: bytes) -> None:
            generator.record(head)
            handler(peer, head)

        return record

    for kind in (Kind.MESSAGE, Kind.CERTIFICATE):
        hub.on_control[kind] = listen(hub.on_control[kind])
