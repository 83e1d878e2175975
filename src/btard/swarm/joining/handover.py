"""
What a candidate believes of the run: the place that more than half of a roster it trusts hand over alike.

Each member tells a candidate, at the end of every round, where the next one begins: the record of ``State`` but for
the vectors. More than half of the roster that the last believed place names cannot all be cheats.
"""

from collections import Counter

import structlog
import trio

from btard.errors import RemoteProtocolError
from btard.identity import Context, PeerId, digest, short
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.swarm.frames import Kind
from btard.swarm.records import MAX_RECORD, WorkRecord, decode_work, open_roster

MAX_HANDOVER = min(MAX_RECORD, 1 << 20)
"""Largest place, in bytes, that a member may hand over: a ban list of some ten thousand fits."""
log = structlog.get_logger(__name__)


class Handovers:
    """The newest place that each member hands over, and the newest that is believed."""

    def __init__(self, config: RunConfig, hub: Hub, trusted: Roster) -> None:
        self._config, self._trusted = config, trusted
        self._me, self._newest = hub.me, dict[PeerId, bytes]()
        self._believed: WorkRecord | None = None
        self._changed = trio.Event()
        hub.on_control[Kind.HANDOVER] = self._receive

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
        self._believed, self._newest = None, {}

    def _receive(self, peer: PeerId, body: bytes) -> None:
        if peer not in self._trusted or len(body) > MAX_HANDOVER:
            return
        name = self._newest[peer] = digest(Context.HELD, body)
        witnesses = self._trusted.without([self._me])
        if Counter(self._newest.get(member) for member in witnesses.members)[name] >= witnesses.majority:
            self._believe(decode_work(body), peer)

    def _believe(self, record: WorkRecord, peer: PeerId) -> None:
        """Go on from a place, if it is of this run and later than the last.

        Raises:
            RemoteProtocolError: it has no orderly roster.
        """
        last = self._believed
        if record.seal.run_id != self._config.run_id or (last and _order(record) <= _order(last)):
            return
        try:
            roster = open_roster(record.roster)
        except ValueError as error:
            raise RemoteProtocolError(f"a place in no run: {error}", peer) from None
        self._believed, self._trusted = record, roster
        self._newest = {peer: body for peer, body in self._newest.items() if peer in self._trusted}
        log.debug("a place in the run", round=record.round, roster=[short(peer) for peer in self._trusted.members])
        self._changed.set()
        self._changed = trio.Event()

    async def next(self, after: WorkRecord | None) -> WorkRecord:
        """Return the newest believed place once there is one that is not ``after``."""
        while self._believed is None or self._believed == after:
            await self._changed.wait()
        return self._believed


def _order(record: WorkRecord) -> tuple[int, int]:
    return record.attempt, record.round
