"""
What a candidate believes of the run: the place that more than half of a roster it trusts name alike.

Each member tells a candidate, at the end of every round, where the next one begins: the record of ``State`` but for
the vectors. A few that are drawn hand it over whole, the others its digest; who lacks it asks those that name it.
More than half of the roster that the last believed place names cannot all be cheats.
"""

import math
from collections import Counter, OrderedDict

import structlog
import trio

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import Context, PeerId, digest, short
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.swarm.frames import Kind
from btard.swarm.records import MAX_RECORD, WorkRecord, decode_work, open_roster

NAME_BYTES = 32
MAX_HANDOVER = min(MAX_RECORD, 1 << 20)
"""Largest place, in bytes, that a member may hand over: a ban list of some ten thousand fits."""
TELLERS = 4
"""Members that hand a place over whole; all of them are cheats in one round of thirty, at 7 of 16."""
MAX_BODIES = 2 * TELLERS
"""Whole places kept, of one member each, until more than half name one."""
log = structlog.get_logger(__name__)


def draw_tellers(q: bytes, candidate: PeerId, roster: Roster) -> frozenset[PeerId]:
    """Return who hands ``candidate`` the place after a round with draw ``q`` whole: at most ``TELLERS`` members."""
    first, step = (int.from_bytes(q[at : at + 8], "little") + int.from_bytes(candidate[:8], "little") for at in (0, 8))
    members = roster.members
    step = 1 + step % max(1, len(members) - 1)
    return frozenset(members[(first + step * place) % len(members)] for place in range(TELLERS))


def name_place(body: bytes) -> bytes:
    """Return the digest of a place."""
    return digest(Context.HELD, body)


class Handovers:
    """The newest place that each member names, and the newest that is believed."""

    def __init__(self, config: RunConfig, hub: Hub, trusted: Roster) -> None:
        self._config, self._trusted, self._hub = config, trusted, hub
        self._me, self._named = hub.me, dict[PeerId, bytes]()
        self._bodies: OrderedDict[PeerId, tuple[bytes, bytes]] = OrderedDict()
        self._untold: bytes | None = None
        self._settled = b""
        self._believed: WorkRecord | None = None
        self._changed = trio.Event()
        hub.on_control[Kind.HANDOVER] = self._receive
        hub.on_control[Kind.PLACE] = self._receive_name

    @property
    def roster(self) -> Roster:
        """The members, as far as we know."""
        return self._trusted

    def trust(self, roster: Roster) -> None:
        """Go by a roster that was learnt otherwise, unless a place was believed already."""
        if self._believed is None:
            self._trusted = roster

    def forget(self) -> None:
        """Believe nothing any more, and go by what is learnt otherwise again."""
        self._believed, self._named, self._untold = None, {}, None
        self._bodies.clear()

    def _receive(self, peer: PeerId, body: bytes) -> None:
        if peer not in self._trusted or len(body) > MAX_HANDOVER:
            return
        name = name_place(body)
        self._bodies[peer] = name, body
        self._bodies.move_to_end(peer)
        if len(self._bodies) > MAX_BODIES:
            self._bodies.popitem(last=False)
        self._count(peer, name)

    def _receive_name(self, peer: PeerId, name: bytes) -> None:
        if peer in self._trusted and len(name) == NAME_BYTES:
            self._count(peer, name)

    def _count(self, peer: PeerId, name: bytes) -> None:
        """Believe what more than half name, if it is here; else have it asked for."""
        self._named[peer] = name
        if name == self._settled:
            return
        witnesses = self._trusted.without([self._me])
        if Counter(self._named.get(member) for member in witnesses.members)[name] < witnesses.majority:
            return
        body = next((body for known, body in self._bodies.values() if known == name), None)
        if body is not None:
            self._believe(name, body, peer)
        elif self._untold != name:
            self._untold = name
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _believe(self, name: bytes, body: bytes, peer: PeerId) -> None:
        """Go on from a place that more than half name, if it is of this run and later than the last.

        Raises:
            RemoteProtocolError: it is none, or has no orderly roster.
        """
        record, last, self._settled = decode_work(body), self._believed, name
        if record.seal.run_id != self._config.run_id or (last and _order(record) <= _order(last)):
            return
        try:
            staying = open_roster(record.roster).everyone & open_roster(record.first_roster).everyone
        except ValueError as error:
            raise RemoteProtocolError(f"a place in no run: {error}", peer) from None
        self._believed, self._trusted = record, Roster.of(staying)  # whoever said goodbye tells no other place
        self._named = {peer: name for peer, name in self._named.items() if peer in self._trusted}
        self._bodies.clear()
        self._untold = None
        log.debug("a place in the run", round=record.round, roster=[short(peer) for peer in self._trusted.members])
        self._tell()

    async def next(self, after: WorkRecord | None) -> WorkRecord:
        """Return the newest believed place once there is one that is not ``after``."""
        while self._believed is None or self._believed == after:
            changed = self._changed
            with trio.move_on_after(math.inf if self._untold is None else self._config.delay_s / 4) as patience:
                await changed.wait()
            if patience.cancelled_caught and self._untold is not None:
                await self._ask_for(self._untold)
        return self._believed

    async def ask_all(self) -> None:
        """Have what those tell whose links were there before we listened: they tell a newcomer once for each link.

        Whoever is started again at its entry has links to ask for the line of seals by, and then hears nothing more.
        """
        async with trio.open_nursery() as nursery:
            for peer in self._trusted.without([self._me]).members:
                if self._hub.is_connected(peer):
                    nursery.start_soon(self._ask, peer)

    async def _ask(self, peer: PeerId) -> None:
        """Take a member's answer for its word, unless it has said anything by itself: that may be newer."""
        try:
            answer = await self._hub.request(peer, Kind.PLACE, b"", timeout_s=2 * self._config.delay_s)
            if answer.head and peer not in self._named:
                self._receive(peer, answer.head)
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("a member does not say where we stand", peer=short(peer), reason=str(error))

    async def _ask_for(self, name: bytes) -> None:
        """Ask those who name a place for it, one after another, until it or another one is believed."""
        last, self._untold = self._believed, None
        for peer in [peer for peer, named in self._named.items() if named == name]:
            if self._believed is not last or self._settled == name:
                return
            try:
                answer = await self._hub.request(peer, Kind.PLACE, b"", timeout_s=2 * self._config.delay_s)
                if name_place(answer.head) == name:
                    self._believe(name, answer.head, peer)
            except (NetworkError, RemoteProtocolError) as error:
                log.debug("no place", peer=short(peer), reason=str(error))


def _order(record: WorkRecord) -> tuple[int, int]:
    return record.attempt, record.round
