"""
How a settlement takes effect here: our own, or one that another member has shown (design section 5).

Whoever missed a part of a recovery adopts what the others settled, whenever it arrives. What follows is written
down, told to all, and waits for the round to take it up.
"""

from statistics import median_low

from btard.identity import PeerId
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
        self._broadcast.board.call()  # another recovery may be called for already
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
        await self._turnstile.enter(peer)
        return self.find_proof(request.attempt) if peer in self._broadcast.place.roster else b"", None

    def _receive(self, body: bytes) -> None:
        """Keep a settlement that another member has come to, if it holds and belongs to our attempt."""
        place = self._broadcast.place
        settlement = open_settlement(self._config, place.roster, place.attempt, body, self._broadcast.board.of)
        if settlement and self.decision is None and self._is_news(settlement):
            self._relayed = self._relayed or settlement
            self._broadcast.board.call()

    def _is_news(self, settlement: Settlement) -> bool:
        """Whether we have not come to it ourselves, and it is about the rounds that we could go back to."""
        is_known = self._known is not None and settlement.order <= self._known
        rounds = [view.payload.position.round for view in settlement.views.values()]  # type: ignore[union-attr]
        return not is_known and abs(median_low(rounds) - self._broadcast.place.round) <= 1

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
