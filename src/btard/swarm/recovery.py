"""
Recovery: one task that settles, with all others, how a halted round goes on (design section 5).

HALT starts it; every member broadcasts one VIEW of what it holds, then one BALLOT for the views it
got; ballots of everyone outside the silent are a certificate, from which rules/recovery.py draws the
same decision everywhere. While a recovery runs, no phase completes here. HALTs and certificates are
relayed: nobody is left out of a recovery, and whoever missed a ballot adopts what the others
concluded. Where no certificate comes the next serial tries again, a bounded number of times; those
who are proven to equivocate have no view in it. The Dolev–Strong fallback takes that place later.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

import structlog
import trio

from btard.errors import LocalProtocolError, RemoteProtocolError, Undecided
from btard.identity import PeerId, digest, short
from btard.identity.digests import Context
from btard.rules.config import RunConfig
from btard.rules.evidence import (
    Cause,
    CertificateProof,
    Departure,
    DepartureKind,
    EquivocationProof,
)
from btard.rules.messages import MAX_EVIDENCE, Ballot, Halt, Holding, Phase, Position, SignedMessage, Stage, View
from btard.rules.recovery import (
    Decision,
    Equivocation,
    compute_views_digest,
    decide,
    find_certificate,
    is_equivocation,
)
from btard.swarm.board import RECOVERY_PHASES
from btard.swarm.broadcast import MAX_PROOFS, MAX_SUPPLY, Broadcast, Expectation, take_small
from btard.swarm.events import Departed, Halted, Observer, Recovered
from btard.swarm.ledger import Ledger
from btard.wire import decode, encode, open_message

log = structlog.get_logger(__name__)

MAX_FRUITLESS = 8
"""Recoveries in one phase without a certificate before the run stops: more means that the swarm cannot agree."""


@dataclass(frozen=True)
class Certificate:
    """Equal ballots of everyone outside the silent, and the views they name."""

    views: Mapping[PeerId, SignedMessage]
    ballots: tuple[SignedMessage, ...]

    @property
    def attempt(self) -> int:
        """The attempt it belongs to."""
        return self.ballots[0].slot.stage.attempt

    @property
    def serial(self) -> int:
        """Which recovery of that attempt."""
        return self.ballots[0].slot.stage.serial

    @property
    def roster(self) -> bytes:
        """The digest of the members that voted."""
        return self.ballots[0].roster

    @property
    def proof(self) -> CertificateProof:
        """What the ledger keeps and others are told."""
        views = tuple(self.views[peer].envelope for peer in sorted(self.views))
        return CertificateProof(tuple(ballot.envelope for ballot in self.ballots), views)


class Recovery:
    """The recovery of the attempt in progress."""

    def __init__(self, config: RunConfig, broadcast: Broadcast, ledger: Ledger, observe: Observer) -> None:
        self._config, self._broadcast, self._ledger, self._observe = config, broadcast, ledger, observe
        self._board = broadcast.board
        self._decision: Decision | None = None
        self._decided_by = b""
        self._running = False
        self._fruitless = 0
        self._marked: set[frozenset[PeerId]] = set()
        self._relayed: Certificate | None = None
        self._adopted: tuple[int, int] | None = None
        broadcast.on_certificate = self._receive_certificate

    @property
    def is_pending(self) -> bool:
        """Whether the round must wait: a recovery runs, or its decision has not been taken up yet."""
        started = self._find_halt() is not None or self._find_relayed() is not None
        return self._running or self._decision is not None or started

    async def settled(self) -> tuple[Decision, bytes]:
        """Wait for the decision and take it up; with the digest by which the next attempt names it."""
        while self._decision is None:
            await self._board.changed()
        decision, self._decision = self._decision, None
        return decision, self._decided_by

    def note_progress(self) -> None:
        """A phase is complete: whatever recoveries it took, the swarm goes on."""
        self._fruitless = 0

    def halt(self, expectation: Expectation, missing: tuple[PeerId, ...], evidence: tuple[Equivocation, ...]) -> None:
        """Say that the round cannot go on, and why."""
        proofs = _encode_proofs(evidence)
        stage = self._stage(Phase.HALT)
        self._observe(Halted(str(expectation.stage), missing))
        log.warning("halt", stage=str(expectation.stage), missing=[short(peer) for peer in missing], proofs=len(proofs))
        self._say(stage, Halt(_position(expectation.stage), missing, proofs))

    def _say(self, stage: Stage, payload: Halt | View | Ballot) -> SignedMessage:
        return self._broadcast.say(stage, self._broadcast.place.roster.digest, b"", payload)

    def _stage(self, phase: Phase) -> Stage:
        place = self._broadcast.place
        return Stage(0, place.attempt, phase, place.serial)

    def _held(self, phase: Phase) -> dict[PeerId, SignedMessage]:
        roster = self._broadcast.place.roster
        return {
            peer: message
            for peer, message in self._board.of(self._stage(phase)).items()
            if peer in roster and message.roster == roster.digest
        }

    def _find_halt(self) -> SignedMessage | None:
        """A HALT of this recovery; before our first stage there is nothing that could be halted."""
        halts = self._held(Phase.HALT) if self._broadcast.place.current else {}
        return next((halts[peer] for peer in sorted(halts) if self._counts(halts[peer], halts)), None)

    def _counts(self, halt: SignedMessage, halts: Mapping[PeerId, SignedMessage]) -> bool:
        """Whether a HALT starts a recovery: it has a reason that its sender has not used up, or f+1 members want it.

        Who halted over another without anybody leaving has used up that pair (attacks B1): nobody halts the
        swarm for nothing more often than it has partners, and nobody escapes by being halted over.
        """
        assert isinstance(halt.payload, Halt)
        roster = self._broadcast.place.roster
        enough = roster.tolerated(self._config.byzantine_bound) + 1
        named = Counter(peer for item in halts.values() for peer in set(item.payload.missing))  # type: ignore[union-attr]
        has_reason = any(
            peer in roster and (named[peer] >= enough or frozenset({halt.sender, PeerId(peer)}) not in self._marked)
            for peer in halt.payload.missing
        )
        entered = self._held(Phase.VIEW).keys() - {self._broadcast.me}
        return has_reason or len(entered) >= enough or bool(self._known_equivocations())

    async def run(self) -> None:
        """Serve one recovery after another, for ever."""
        while True:
            if self._decision is None and (certificate := self._find_relayed()):
                self._conclude(certificate, trio.current_time())
            elif self._decision is None and (halt := self._find_halt()):
                await self._recover(halt)
            else:
                await self._board.changed()

    async def _recover(self, halt: SignedMessage) -> None:
        self._running, entered, delay_s = True, trio.current_time(), self._config.delay_s
        if self._fruitless >= MAX_FRUITLESS:
            raise Undecided(f"no agreement after {MAX_FRUITLESS} recoveries in one phase; the swarm stops")
        self._broadcast.relay(halt)
        roster, views = self._broadcast.place.roster, self._stage(Phase.VIEW)
        self._say(views, self._build_view(halt))
        if not await self._wait_until(lambda: len(self._views()) == len(roster), 2 * delay_s):
            await self._broadcast.pull(views, self._broadcast.others, 2 * delay_s)
        held = self._views()
        silent = tuple(peer for peer in roster.members if peer not in held)
        self._say(self._stage(Phase.BALLOT), Ballot(silent, compute_views_digest(held)))
        await self._wait_until(lambda: self._certificate() is not None, 4 * delay_s)
        certificate = self._certificate()
        if certificate is None:  # somebody told us and others different things: find out who
            await self._broadcast.pull(views, self._broadcast.others, 2 * delay_s)
        self._conclude(certificate or self._certificate(), entered)

    def _conclude(self, certificate: Certificate | None, entered: float) -> None:
        place = self._broadcast.place
        decision = self._adopt(certificate) if certificate else Decision((), (), place.round, ())
        # Those with a certificate are bounded by the pairs that they mark, and end nothing.
        self._fruitless = 0 if decision.changes_roster else self._fruitless + (certificate is None)
        place.serial = max(place.serial, certificate.serial + 1) if certificate else place.serial + 1
        self._observe(Recovered(place.round, decision.removed, decision.banned, trio.current_time() - entered))
        self._running, self._decision, self._relayed = False, decision, None
        self._board.signal()

    async def _wait_until(self, is_done: Callable[[], bool], seconds: float) -> bool:
        with trio.move_on_after(seconds):
            while not is_done():
                await self._board.changed()
        return is_done()

    def _build_view(self, halt: SignedMessage) -> View:
        place = self._broadcast.place
        stages = [item for item in (place.last, place.current) if item is not None]
        if not stages:
            raise LocalProtocolError("a recovery before the first round")
        evidence = _encode_proofs(self._known_equivocations())
        return View(
            _position(stages[-1].stage),
            place.overdue,
            tuple(self._holding(item) for item in stages),
            self._supply(stages),
            evidence,
            halt.envelope,
        )

    def _holding(self, expectation: Expectation) -> Holding:
        accepted = self._broadcast.accepted(expectation)
        roster = self._broadcast.place.roster
        digests = tuple(accepted[peer].digest if peer in accepted else b"" for peer in roster.members)
        return Holding(_position(expectation.stage), digests)

    def _supply(self, stages: list[Expectation]) -> tuple[bytes, ...]:
        """The bytes of whatever the known HALTs call missing and we hold."""
        supplied = []
        for halt in self._held(Phase.HALT).values():
            payload = halt.payload
            assert isinstance(payload, Halt)
            for expectation in stages:
                if expectation.stage == payload.position.stage:
                    accepted = self._broadcast.accepted(expectation)
                    supplied += [accepted[PeerId(p)].envelope for p in payload.missing if p in accepted]
        return tuple(sorted(take_small(set(supplied), MAX_SUPPLY)))

    def _known_equivocations(self) -> tuple[Equivocation, ...]:
        roster = self._broadcast.place.roster
        found = {item.culprit: item for item in self._board.equivocations()}
        for halt in self._held(Phase.HALT).values():
            assert isinstance(halt.payload, Halt)
            for item in self._open_evidence(halt.payload.evidence):
                found.setdefault(item.culprit, item)
        return tuple(found[peer] for peer in sorted(found) if peer in roster)

    def _open_evidence(self, proofs: tuple[bytes, ...]) -> list[Equivocation]:
        opened = []
        for proof in proofs:
            try:
                pair = decode(proof, EquivocationProof)
                first, second = (open_message(self._config.run_id, item) for item in (pair.first, pair.second))
            except RemoteProtocolError:
                continue
            if is_equivocation(first, second):
                opened.append(Equivocation(first, second))
        return opened

    def _views(self) -> dict[PeerId, SignedMessage]:
        """The views that count: not of those who are proven to equivocate, as far as any view shows it."""
        views = self._held(Phase.VIEW)
        shown = [item for view in views.values() for item in self._open_evidence(view.payload.evidence)]  # type: ignore[union-attr]
        culprits = {
            item.culprit for item in (*shown, *self._board.equivocations()) if item.stage.phase in RECOVERY_PHASES
        }
        return {peer: view for peer, view in views.items() if peer not in culprits}

    def _certificate(self) -> Certificate | None:
        """The certificate, once its ballots and all views they name are here, or another member has sent it."""
        return self._find_relayed() or self._assemble(self._held(Phase.BALLOT), self._held(Phase.VIEW))

    def _assemble(
        self, ballots: Mapping[PeerId, SignedMessage], views: Mapping[PeerId, SignedMessage]
    ) -> Certificate | None:
        found = find_certificate(self._broadcast.place.roster, ballots)
        if found is None:
            return None
        silent, views_digest, votes = found
        named = {peer: view for peer, view in views.items() if peer not in silent}
        return Certificate(named, votes) if compute_views_digest(named) == views_digest else None

    def _find_relayed(self) -> Certificate | None:
        """A certificate of the attempt in progress that another member has sent."""
        relayed, place = self._relayed, self._broadcast.place
        is_ours = relayed is not None and (relayed.attempt, relayed.roster) == (place.attempt, place.roster.digest)
        return relayed if is_ours else None

    def _receive_certificate(self, body: bytes) -> None:
        """Keep a certificate that another member has come to, if it holds and belongs to our attempt."""
        proof = decode(body, CertificateProof)
        ballots, views = (
            {message.sender: message for message in (open_message(self._config.run_id, item) for item in envelopes)}
            for envelopes in (proof.ballots, proof.views)
        )
        stages = {message.slot.stage for message in ballots.values()}
        if len(stages) != 1 or not self._is_of_attempt(next(iter(stages)), (*ballots.values(), *views.values())):
            return
        certificate = self._assemble(ballots, views)
        if certificate and self._decision is None and self._is_news(certificate):
            self._relayed = self._relayed or certificate
            self._board.signal()

    def _is_news(self, certificate: Certificate) -> bool:
        """Whether we have not come to it ourselves, and it is about the rounds that we could go back to."""
        adopted, place = self._adopted, self._broadcast.place
        is_known = adopted is not None and (certificate.attempt, certificate.serial) <= adopted
        rounds = [view.payload.position.round for view in certificate.views.values()]  # type: ignore[union-attr]
        return not is_known and abs(median_low(rounds) - place.round) <= 1

    def _is_of_attempt(self, stage: Stage, messages: Iterable[SignedMessage]) -> bool:
        """Whether all messages are ballots and views of one recovery of our attempt."""
        place = self._broadcast.place
        stages = {stage._replace(phase=phase) for phase in (Phase.VIEW, Phase.BALLOT)}
        return (stage.round, stage.attempt, stage.phase) == (0, place.attempt, Phase.BALLOT) and all(
            message.slot.stage in stages and message.roster == place.roster.digest for message in messages
        )

    def _adopt(self, certificate: Certificate) -> Decision:
        """Draw the decision from certified views, write it down, tell everyone, supply what was missing."""
        views = certificate.views
        place = self._broadcast.place
        opened = {peer: message.payload for peer, message in views.items()}
        shown = [
            item
            for peer in sorted(opened)
            for item in self._open_evidence(opened[peer].evidence)  # type: ignore[union-attr]
        ]
        equivocations = {item.culprit: item for item in sorted(shown, key=lambda item: item.order, reverse=True)}
        tolerated = place.roster.tolerated(self._config.byzantine_bound)
        supplied = self._open_supplied(view for view in opened.values() if isinstance(view, View))
        is_first = certificate.serial == 0
        decision = decide(place.roster, opened, shown, tolerated, supplied, is_first=is_first)  # type: ignore[arg-type]
        self._adopted = certificate.attempt, certificate.serial
        self._broadcast.tell_certificate(encode(certificate.proof))
        for peer in decision.banned:
            item = equivocations[peer]
            proof = EquivocationProof(item.first.envelope, item.second.envelope)
            self._depart(
                Departure(peer, decision.resume_round, place.attempt, DepartureKind.BAN, Cause.EQUIVOCATION, proof)
            )
        for peer in decision.removed:
            self._depart(
                Departure(
                    peer, decision.resume_round, place.attempt, DepartureKind.REMOVAL, Cause.SILENCE, certificate.proof
                )
            )
        for message in supplied:
            self._broadcast.take(message)
        if not decision.changes_roster:
            self._mark_pairs((view for view in opened.values() if isinstance(view, View)), certificate)
        self._decided_by = digest(Context.VIEWS, compute_views_digest(views))
        return decision

    def _mark_pairs(self, views: Iterable[View], certificate: Certificate) -> None:
        """Remember who halted over whom without anybody leaving, as the agreed views show it."""
        stage = certificate.ballots[0].slot.stage._replace(phase=Phase.HALT)
        for envelope in {view.halt for view in views}:
            try:
                halt = open_message(self._config.run_id, envelope)
            except RemoteProtocolError:
                continue
            if isinstance(halt.payload, Halt) and halt.slot.stage == stage:
                self._marked |= {frozenset({halt.sender, PeerId(peer)}) for peer in halt.payload.missing}

    def _open_supplied(self, views: Iterable[View]) -> list[SignedMessage]:
        """The messages that agreed views supply; what is no message was supplied by a cheat."""
        opened = []
        for envelope in sorted({envelope for view in views for envelope in view.supplied}):
            try:
                opened.append(open_message(self._config.run_id, envelope))
            except RemoteProtocolError as error:
                log.warning("a view supplied a bad message", reason=str(error))
        return opened

    def _depart(self, departure: Departure) -> None:
        self._ledger.record_departure(departure)
        peer = PeerId(departure.peer)
        self._observe(Departed(peer, departure.round, departure.attempt, departure.kind, departure.cause))


def _position(stage: Stage) -> Position:
    return Position(*map(int, stage))


def _encode_proofs(evidence: Iterable[Equivocation]) -> tuple[bytes, ...]:
    """As many proofs as a message may hold; the others follow in the next recovery."""
    proofs = [encode(EquivocationProof(item.first.envelope, item.second.envelope)) for item in evidence]
    return tuple(take_small(proofs, MAX_PROOFS)[:MAX_EVIDENCE])
