"""A thrower with a place in the run: a real peer whose hub also sends what no honest peer would."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio
from tests.fuzz.generate import HEADS, Generator, is_chatter
from tests.fuzz.strangers import make_control
from tests.fuzz.target import HONEST, LOOPBACK, VICTIM, make_config, make_identities, make_member

from btard.errors import BtardError, NetworkError
from btard.identity import PeerId
from btard.net import MAX_CONTROL, Address, Hub, Terms, open_tcp
from btard.net.requests import encode_request
from btard.net.session import REQUEST, Session
from btard.rules.messages import Phase, Stage
from btard.rules.roster import Roster
from btard.sim.swarm import StaticDirectory
from btard.swarm.board import RECOVERY_PHASES
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import Kind, SliceHead, SliceRequest
from btard.swarm.peer import run_peer
from btard.wire import encode

WARM_ROUNDS = 2
FAR = 4  # rounds or attempts ahead
GUILTY = 1 / 20_000
"""How often it signs what convicts it: then its part in this swarm is over."""
BATCH = 100
"""Messages that a link survives, before one that ends it: whatever is written after that one is lost."""
END_SECONDS = 0.2
RETRY_SECONDS = 0.01
RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT)


class Member:
    """The attacker of one swarm; ``count`` is told of every message thrown whether it is well-formed."""

    def __init__(
        self, generator: Generator, epoch: int, ports: list[int], directory: Path, count: Callable[..., None]
    ) -> None:
        self._count = count
        self._generator, self._chance = generator, generator.chance
        self._config, identities = make_config(epoch), make_identities(epoch)
        self._identity, self._roster = identities[HONEST], Roster(tuple(sorted(item.peer_id for item in identities)))
        self._victim = identities[VICTIM].peer_id
        self._addresses = {
            item.peer_id: Address("127.0.0.1", port) for item, port in zip(identities[:HONEST], ports, strict=True)
        }
        self._data_dir = directory / str(epoch)
        self._round = self._attempt = 0
        self._serials = itertools.count(7)
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
            self._round, self._attempt = event.round, event.result.attempt

    async def _throw(self, hub: Hub) -> None:
        while self._round < WARM_ROUNDS:
            await trio.sleep(0.05)
        self._listen_to(hub)
        while True:
            session = await self._find_session(hub)
            with suppress(NetworkError), trio.move_on_after(1):
                for _ in range(BATCH):
                    self._send(session, *self._make_bearable())
                await self._throw_bulk(session)
                await session.flush()
                self._send(session, *self._make_lethal())
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

    def _listen_to(self, hub: Hub) -> None:
        """Take what honest peers say to us into the corpus, before it is handled as ever."""

        def listen(handler: Callable[[PeerId, bytes], None]) -> Callable[[PeerId, bytes], None]:
            def record(peer: PeerId, head: bytes) -> None:
                self._generator.record(head)
                handler(peer, head)

            return record

        for kind in (Kind.MESSAGE, Kind.CERTIFICATE):
            hub.on_control[kind] = listen(hub.on_control[kind])

    def _make_lethal(self) -> tuple[int, bytes]:
        """Return what ends a member's link: no message, no request, or somebody else's words."""
        generator, recorded = self._generator, self._generator.recorded()
        match self._chance.randrange(4):
            case 0:
                return make_control(generator)
            case 1:
                return Kind.MESSAGE, generator.mutate(recorded)
            case 2:
                return Kind.MESSAGE, generator.resigned(self._identity, recorded)
            case _:
                return Kind.MESSAGE, self._sign()

    def _make_bearable(self) -> tuple[int, bytes]:
        """Return what a member may say, and what makes no sense: odd but valid payloads, repetitions, questions."""
        roll = self._chance.random()
        with self._generator.fitting():
            if roll < 0.8:
                return Kind.MESSAGE, self._sign()
            if roll < 0.85:
                return Kind.MESSAGE, self._generator.recorded_heard()
            return REQUEST, encode_request(self._chance.randrange(2**32), *self._ask())

    def _sign(self) -> bytes:
        """Return an envelope with our signature over something odd."""
        chance = self._chance
        if chance.random() < GUILTY:
            stage = Stage(self._round + 1, self._attempt, chance.choice(list(Phase)), chance.randrange(2))
        else:
            stage = self._choose_harmless_stage(chance.randint(FAR, 2**20), chance.choice(list(Phase)))
        return self._generator.signed(self._identity, self._config.run_id, self._roster.digest, stage)

    def _choose_harmless_stage(self, far: int, phase: Phase) -> Stage:
        """Return a stage in which we never say anything else: far away, past, or of a recovery that never comes.

        Two messages for one slot would convict us: a past stage is none of a recovery, and no recovery comes twice.
        """
        past = phase if phase not in RECOVERY_PHASES else Phase.CHECK
        stages = [
            Stage(self._round + far, self._attempt, phase),
            Stage(max(0, self._round - far), self._attempt, past),
            Stage(self._round, self._attempt + far, phase, far % 3),
            Stage(0, self._attempt + 1, self._chance.choice(RECOVERY), next(self._serials)),
        ]
        return self._chance.choice(stages)

    def _ask(self) -> tuple[int, bytes]:
        """Return the kind and the body of a question."""
        if self._chance.random() < 0.3:
            first, count = self._chance.randrange(20), self._chance.randint(1, 5)
            return Kind.PULL_SLICE, encode(SliceRequest(self._round, self._chance.randbytes(32), first, first + count))
        kind = self._chance.choice([Kind.PULL_STAGE, Kind.PULL_PART, 77])
        return kind, self._generator.struct(HEADS.get(kind, SliceHead))

    async def _throw_bulk(self, session: Session) -> None:
        """Send a payload that does not fit its head, or that nobody asked for."""
        kind = self._chance.choice([Kind.SLICE, Kind.PART])
        size = self._chance.choice([0, 1, 4, 32, 33, 320, 800, 1 << 16])
        with self._generator.fitting():
            head = self._generator.struct(HEADS[kind])[: 16 << 10]
        self._count(is_chatter=is_chatter(kind, head))
        await session.send_bulk(kind, head, memoryview(bytes(size)))
