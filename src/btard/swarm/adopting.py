"""
How a settlement takes effect here: our own, or one that another member has shown (design section 5).

Whoever missed a part of a recovery adopts what the others settled, whenever it arrives. What follows is written
down, told to all, and waits for the round to take it up.
"""

import structlog

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net import MAX_CONTROL
from btard.rules.config import RunConfig
from btard.rules.evidence import AnyProof, Cause, Departure, DepartureKind
from btard.rules.messages import View
from btard.rules.recovery import Decision
from btard.swarm.broadcast import Broadcast
from btard.swarm.events import Departed, Observer
from btard.swarm.frames import Kind, SettledRequest
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.swarm.settlement import Settlement, draw_decision, find_equivocations, open_settlement, open_supplied
from btard.swarm.viewing import make_proof
from btard.wire import decode, encode

log = structlog.get_logger(__name__)


class Adopting:
    """The settlement that others show of the attempt in progress, and the decision that the round must take up."""

    def __init__(self, config: RunConfig, broadcast: Broadcast, ledger: Ledger, observe: Observer) -> None:
        self._config, self._broadcast, self._ledger, self._observe = config, broadcast, ledger, observe
        self.decision: Decision | None = None
        self._decided_by = b""
        self._relayed: Settlement | None = None
        self._known: tuple[int, int] | None = None
        self._turnstile = Turnstile(broadcast.hub)
        broadcast.on_certificate = self._receive
        broadcast.hub.serve[Kind.PULL_SETTLED] = self._serve

    def take_up(self) -> tuple[Decision, bytes]:
        """Return the decision, once, with the digest by which the next attempt names it."""
        assert self.decision is not None
        decision, self.decision = self.decision, None
        return decision, self._decided_by

    def find_relayed(self) -> Settlement | None:
        """A settlement of the attempt in progress that another member has shown."""
        relayed, place = self._relayed, self._broadcast.place
        is_ours = relayed is not None and (relayed.stage.attempt, relayed.roster) == (
            place.attempt,
            place.roster.digest,
        )
        return relayed if is_ours else None

    def find_proof(self, attempt: int) -> bytes:
        """What settled an attempt, as far as we keep it; or nothing."""
        return self._ledger.find_settlement(attempt)

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        """Answer a member that was away while others settled something."""
        request: SettledRequest = decode(body, SettledRequest)
        is_later = self._known is not None and (request.attempt, request.serial) > self._known
        await self._turnstile.enter(peer)
        return self.find_proof(request.attempt) if peer in self._broadcast.place.roster and not is_later else b"", None

    def _receive(self, body: bytes) -> None:
        """Keep a settlement that another member has come to, if it holds and belongs to our attempt."""
        place = self._broadcast.place
        settlement = open_settlement(self._config, place.roster, place.attempt, body, self._broadcast.board.of)
        if settlement and self._is_news(settlement):
            self._relayed = settlement
            self._broadcast.board.call()

    def _is_news(self, settlement: Settlement) -> bool:
        """Whether it is later than all that we have come to or were told of our attempt.

        What its views say of rounds is no reason to refuse it: half of them may be lies. Whoever was started again may
        be told one that it knew: that changed no roster, or the attempt would be another, and marks nothing twice.
        """
        relayed = self.find_relayed()
        known = [self._known] if self._known else []
        return all(settlement.order > order for order in (*known, *([relayed.order] if relayed else [])))

    def draw(self, settlement: Settlement) -> Decision:
        """Return what follows from a settlement for the roster of the attempt in progress."""
        return draw_decision(self._config, self._broadcast.place.roster, settlement)

    def lay_aside(self, settlement: Settlement) -> None:
        """Know a settlement, and do nothing by it."""
        self._known, self._relayed = settlement.order, None

    def adopt(self, settlement: Settlement) -> Decision:
        """Draw the decision from agreed views, write it down, tell everyone, supply what was missing."""
        decision = self.draw(settlement)
        views = [view.payload for view in settlement.views.values() if isinstance(view.payload, View)]
        self.lay_aside(settlement)
        told = encode(settlement.proof)
        if len(told) <= MAX_CONTROL:  # else it fits into no message
            self._ledger.record_settlement(settlement.stage.attempt, told)
        self._tell(settlement, told)
        ours = {item.culprit: item for item in self._broadcast.board.equivocations()}
        proofs = ours | {item.culprit: item for item in find_equivocations(self._config, views)}
        for peer in decision.banned:
            proof = settlement.proof if peer not in proofs else make_proof(proofs[peer])
            self._depart(decision, peer, Cause.EQUIVOCATION, proof)
        for peer in decision.removed:
            self._depart(decision, peer, Cause.SILENCE, settlement.proof)
        for peer in decision.overmarked:
            self._depart(decision, peer, Cause.TOO_MANY_MARKS, settlement.proof)
        for message in open_supplied(self._config, views):
            self._broadcast.take(message)
        self.decision, self._decided_by = decision, settlement.digest
        return decision

    def _tell(self, settlement: Settlement, proof: bytes) -> None:
        """Show everyone by what we go on; those who voted for it the ballots alone, which are a seventh of it."""
        voters = {vote.sender for vote in settlement.votes} if settlement.is_certificate else set()
        ballots = encode(settlement.ballots) if voters else b""
        for peer in self._broadcast.others:
            self._broadcast.tell_certificate(peer, ballots if peer in voters else proof)

    def _depart(self, decision: Decision, peer: PeerId, cause: Cause, proof: AnyProof) -> None:
        kind = DepartureKind.BAN if cause is Cause.EQUIVOCATION else DepartureKind.REMOVAL
        departure = Departure(peer, decision.resume_round, self._broadcast.place.attempt, kind, cause, proof)
        self._ledger.record_departure(departure)
        self._observe(Departed(peer, departure.round, departure.attempt, kind, cause))


async def ask_for_settlement(broadcast: Broadcast, peer: PeerId, serial: int, timeout_s: float) -> None:
    """Learn from a member what settled the attempt that we are in, in recovery ``serial`` of it or a later one."""
    request = encode(SettledRequest(broadcast.place.attempt, serial))
    try:
        answer = await broadcast.hub.request(peer, Kind.PULL_SETTLED, request, timeout_s=timeout_s)
        if answer.head:
            broadcast.on_certificate(answer.head)
    except (NetworkError, RemoteProtocolError) as error:
        log.debug("no answer about a settlement", peer=short(peer), reason=str(error))
