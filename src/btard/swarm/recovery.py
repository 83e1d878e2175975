"""
Recovery: one task that settles, with all others, how a halted round goes on (design section 5).

HALT starts it; every member broadcasts one VIEW of what it holds, then one BALLOT for the views it
got; ballots of everyone outside the silent are a certificate, from which rules/recovery.py draws the
same decision everywhere. While a recovery runs, no phase completes here. Where no certificate comes
the next serial tries again, a bounded number of times; the Dolev–Strong fallback takes that place
later.
"""

from collections.abc import Iterable, Mapping

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
from btard.swarm.broadcast import Broadcast, Expectation
from btard.swarm.events import Departed, Halted, Observer, Recovered
from btard.swarm.ledger import Ledger
from btard.wire import decode, encode, open_message

log = structlog.get_logger(__name__)

MAX_SERIALS = 8
"""Recoveries of one attempt before the run stops: more means that the swarm cannot agree."""


class Recovery:
    """The recovery of the attempt in progress."""

    def __init__(self, config: RunConfig, broadcast: Broadcast, ledger: Ledger, observe: Observer) -> None:
        self._config, self._broadcast, self._ledger, self._observe = config, broadcast, ledger, observe
        self._board = broadcast.board
        self._decision: Decision | None = None
        self._decided_by = b""
        self._running = False

    @property
    def is_pending(self) -> bool:
        """Whether the round must wait: a recovery runs, or its decision has not been taken up yet."""
        return self._running or self._decision is not None or self._find_halt() is not None

    async def settled(self) -> tuple[Decision, bytes]:
        """Wait for the decision and take it up; with the digest by which the next attempt names it."""
        while self._decision is None:
            await self._board.changed()
        decision, self._decision = self._decision, None
        if not decision.changes_roster:
            self._broadcast.place.serial += 1
        return decision, self._decided_by

    def halt(self, expectation: Expectation, missing: tuple[PeerId, ...], evidence: tuple[Equivocation, ...]) -> None:
        """Say that the round cannot go on, and why."""
        proofs = tuple(_encode_evidence(item) for item in evidence[:MAX_EVIDENCE])
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
        return halts[min(halts)] if halts else None

    async def run(self) -> None:
        """Serve one recovery after another, for ever."""
        while True:
            if self._decision is None and (halt := self._find_halt()):
                await self._recover(halt)
            else:
                await self._board.changed()

    async def _recover(self, halt: SignedMessage) -> None:
        self._running, entered = True, trio.current_time()
        place = self._broadcast.place
        if place.serial >= MAX_SERIALS:
            raise Undecided(f"no agreement after {MAX_SERIALS} recoveries of one attempt; the swarm stops")
        self._say(self._stage(Phase.VIEW), self._build_view(halt))
        await self._wait_until(lambda: len(self._held(Phase.VIEW)) == len(place.roster), 2 * self._config.delay_s)
        views = self._held(Phase.VIEW)
        silent = tuple(peer for peer in place.roster.members if peer not in views)
        self._say(self._stage(Phase.BALLOT), Ballot(silent, compute_views_digest(views)))
        await self._wait_until(lambda: self._certificate() is not None, 4 * self._config.delay_s)
        certificate = self._certificate()
        decision = self._adopt(*certificate) if certificate else Decision((), (), place.round, ())
        self._observe(Recovered(place.round, decision.removed, decision.banned, trio.current_time() - entered))
        self._running, self._decision = False, decision
        self._board.signal()

    async def _wait_until(self, is_done: "object", seconds: float) -> None:
        assert callable(is_done)
        with trio.move_on_after(seconds):
            while not is_done():
                await self._board.changed()

    def _build_view(self, halt: SignedMessage) -> View:
        place = self._broadcast.place
        stages = [item for item in (place.last, place.current) if item is not None]
        if not stages:
            raise LocalProtocolError("a recovery before the first round")
        evidence = tuple(_encode_evidence(item) for item in self._known_equivocations()[:MAX_EVIDENCE])
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
        return tuple(sorted(set(supplied)))

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

    def _certificate(
        self,
    ) -> tuple[tuple[PeerId, ...], Mapping[PeerId, SignedMessage], tuple[SignedMessage, ...]] | None:
        """The certificate, once its ballots and all views they name are here."""
        place = self._broadcast.place
        found = find_certificate(place.roster, self._held(Phase.BALLOT))
        if found is None:
            return None
        silent, views_digest, ballots = found
        views = {peer: view for peer, view in self._held(Phase.VIEW).items() if peer not in silent}
        return (silent, views, ballots) if compute_views_digest(views) == views_digest else None

    def _adopt(
        self, silent: tuple[PeerId, ...], views: Mapping[PeerId, SignedMessage], ballots: tuple[SignedMessage, ...]
    ) -> Decision:
        """Draw the decision from certified views, write it down, supply what was missing."""
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
        decision = decide(place.roster, opened, shown, tolerated, supplied)  # type: ignore[arg-type]
        certificate = CertificateProof(
            tuple(ballot.envelope for ballot in ballots), tuple(views[peer].envelope for peer in sorted(views))
        )
        for peer in decision.banned:
            item = equivocations[peer]
            proof = EquivocationProof(item.first.envelope, item.second.envelope)
            self._depart(
                Departure(peer, decision.resume_round, place.attempt, DepartureKind.BAN, Cause.EQUIVOCATION, proof)
            )
        for peer in decision.removed:
            self._depart(
                Departure(peer, decision.resume_round, place.attempt, DepartureKind.REMOVAL, Cause.SILENCE, certificate)
            )
        for message in supplied:
            self._board.post(message)
        self._decided_by = digest(Context.VIEWS, compute_views_digest(views))
        return decision

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


def _encode_evidence(item: Equivocation) -> bytes:
    return encode(EquivocationProof(item.first.envelope, item.second.envelope))
