"""
Reception: a member's dealings with strangers and candidates (design section 6, Joining; attacks B8).

Strangers show tickets, candidates tell samples; we quote in COMMIT what we have verified or were told, redo what
we are drawn to redo, beside the round, and hand every candidate the place in the run that each round leads to.
Nothing here waits for a candidate, and no round waits for anything here.
"""

from collections.abc import Awaitable, Callable, Collection

import structlog
import trio

from btard.errors import RemoteProtocolError
from btard.identity import JoinTicket, PeerId
from btard.net import Hub
from btard.rules.admission import Check, choose_quoted, find_closure, is_open, rank_ticket
from btard.rules.admission import Work as CandidateWork
from btard.rules.config import RunConfig
from btard.rules.messages import MAX_TICKETS, Finding, Quotes, Report, Sample
from btard.rules.sampling import is_sample, judge_sample
from btard.swarm.compute import Compute
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, Receipt, SampleHead
from btard.swarm.joining.handover import draw_tellers, name_place
from btard.swarm.joining.past import ROUNDS, Past
from btard.swarm.joining.telling_updates import UpdateTeller
from btard.swarm.joining.ticket_desk import MAX_TICKET_BYTES, Outlook, Reply, TicketDesk
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.swarm.records import encode_place
from btard.swarm.state import State, Work
from btard.swarm.updates import Update, Updates
from btard.swarm.workload import Workload
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

CHARGE, AGREE = 1.0, 0.5
"""Checkers charge beyond the run's tolerance, voters agree beyond half of it."""

Spawn = Callable[[Callable[[], Awaitable[None]]], None]


class Reception:
    """One member's knowledge of those who are not members yet; ``aside`` works beside the round."""

    def __init__(
        self,
        config: RunConfig,
        me: PeerId,
        hub: Hub,
        workload: Workload,
        conduct: Conduct,
        aside: Compute,
        ledger: Ledger,
        updates: Updates,
        spawn: Spawn,
    ) -> None:
        self._config, self._me, self._hub, self._workload = config, me, hub, workload
        self._conduct, self._aside, self._spawn = conduct, aside, spawn
        self._ledger, self._admitted = ledger, dict[PeerId, int]()
        self._desk = TicketDesk(config.ticket_terms, self._look_at, aside, hub.close)
        self._turnstile = Turnstile(hub)
        self._past = Past()
        self._guests: frozenset[bytes] = frozenset()
        self._dismissed: frozenset[bytes] = frozenset()
        self._round, self._is_closed = 0, bool(find_closure(config, None))
        self._samples: dict[tuple[int, PeerId], tuple[int, Report]] = {}
        self._began: dict[int, int] = {}
        self._outlooks: dict[int, Outlook] = {}
        self._charged: set[CandidateWork] = set()
        self._findings: dict[Check, Finding] = {}
        self._updates = UpdateTeller(config, hub, updates, aside, self.is_guest)
        self._place, self._entries = b"", dict[PeerId, bytes]()
        hub.serve[Kind.JOIN_TICKET] = self._serve_ticket
        hub.serve[Kind.PLACE] = self._serve_place
        hub.on_control[Kind.SAMPLE] = self._receive_sample
        hub.favour(self.is_guest)

    def is_guest(self, peer: PeerId) -> bool:
        """Return whether a peer is on probation, or about to be a member."""
        return peer in self._guests

    def begin_round(self, state: State) -> None:
        """Move on to a round, and redo beside it what we are drawn to check."""
        self._round, self._is_closed = state.round, bool(find_closure(self._config, state.seal))
        self._outlooks.clear()
        self._entries.clear()
        self._updates.begin_round(state.round)
        guests = frozenset(item.peer for item in state.seal.candidates) | state.newcomers
        self._dismissed, self._guests = self._guests - guests - frozenset(state.roster.members), guests
        self._past.note(state)
        self._spend_tickets(state)
        self._samples = {key: item for key, item in self._samples.items() if key[0] >= state.round - 1}
        self._began = {state.round - 1: self._began.get(state.round - 1, -1), state.round: state.attempt}
        self._charged = {work for work in self._charged if work.round >= state.round - ROUNDS}
        oldest = state.round - ROUNDS - 1  # that round may be run again, and x of then is gone
        self._findings = {check: item for check, item in self._findings.items() if check.work.round >= oldest}
        if self._desk.has_tickets and is_open(self._config, state.seal):
            self._spawn(lambda: self._look_at_tickets(state))
        for check in state.checks:
            if check.checker == self._me:
                self._spawn(lambda check=check: self._redo(check))  # type: ignore[misc]

    def _spend_tickets(self, state: State) -> None:
        """Forget the tickets that are too old or of keys that get no place.

        Whoever is on probation has had its ticket: to come again it needs one on a later draw.
        """
        before, oldest = self._admitted, state.round - self._config.ticket_window
        admitted = before | {PeerId(item.peer): item.since for item in state.seal.candidates}
        self._admitted = {peer: since for peer, since in admitted.items() if since >= oldest}
        for peer, _ in self._admitted.items() - before.items():
            self._desk.forgive(peer)
        known = {*state.seal.roster, *state.seal.banned, *(item.peer for item in state.seal.candidates)}
        self._desk.forget(lambda ticket: ticket.round < oldest or ticket.peer in known)

    def quote(self, state: State) -> Quotes:
        """Return what we pass on in the COMMIT of a round."""
        peers = [PeerId(item.peer) for item in state.seal.candidates]
        heard = [(peer, self._find_sample(state.round - 1, peer)) for peer in peers]
        charged = (check.work for check in state.due if check.checker == self._me)
        return Quotes(
            choose_quoted(state.q, self._desk.find_good(), MAX_TICKETS) if is_open(self._config, state.seal) else (),
            tuple(Sample(peer, report) for peer, report in heard if report is not None),
            tuple(work.candidate for work in charged if work in self._charged),
        )

    def _find_sample(self, number: int, peer: PeerId) -> Report | None:
        """What a candidate told us of a round, as that began last."""
        attempt, report = self._samples.get((number, peer), (-1, None))
        return report if attempt == self._began.get(number) else None

    def hand_over(self, work: Work) -> None:
        """Tell candidates and newcomers where a round begins, and have ready for them the aggregate that led there.

        Few tell a candidate more than the digest. Whoever is no candidate any more is told once.
        """
        before, guests = work.previous, self._guests | self._dismissed
        if not guests or before is None or before.aggregate is None:
            return
        self._updates.finish_round(before.round, Update(before.aggregate, before.is_update_due))
        place = self._place = encode_place(work)
        self._entries, name = dict.fromkeys(work.state.newcomers, place), name_place(place)
        for peer in map(PeerId, sorted(guests)):
            is_whole = peer in work.state.newcomers or self._me in draw_tellers(work.state.q, peer, work.roster)
            self._hub.send(peer, *((Kind.HANDOVER, place) if is_whole else (Kind.PLACE, name)))

    async def _serve_place(self, peer: PeerId, _body: bytes) -> tuple[bytes, None]:
        """Answer a candidate that only heard the digest of where we said that the round, or its entry, begins."""
        await trio.lowlevel.checkpoint()
        return self._entries.get(peer, self._place if self.is_guest(peer) else b""), None

    def take_in(self, work: Work, joined: Collection[PeerId]) -> None:
        """Tell newcomers that they are members now, and in which attempt; or, after a restart, where we are."""
        self._entries |= dict.fromkeys(joined, encode_place(work))
        for peer in joined:
            self.remind(peer)

    def remind(self, peer: PeerId) -> None:
        """Tell a newcomer again where it begins: without a link it did not hear it, and all of us may be needed."""
        if place := self._entries.get(peer):
            self._hub.send(peer, Kind.HANDOVER, place)

    async def _serve_ticket(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        """Look at a ticket, and say why if it is refused."""
        ticket: JoinTicket = decode(body, JoinTicket, limit=MAX_TICKET_BYTES)
        await self._turnstile.enter(peer)
        reply = self._desk.present(peer, ticket, self._hub.find_host(peer))
        return encode(Receipt(int(reply))), None

    async def _look_at_tickets(self, state: State) -> None:
        """Evaluate those that the draw of a round puts first."""
        await self._desk.evaluate_first(lambda ticket: rank_ticket(state.q, ticket), MAX_TICKETS)

    def _look_at(self, ticket: JoinTicket) -> Outlook | Reply:
        """What a ticket is judged by, or why nobody gets a place by it: whoever had one needs a later draw."""
        if self._is_closed:
            return Reply.CLOSED
        if ticket.round < self._admitted.get(PeerId(ticket.peer), 0):
            return Reply.STALE
        return self._find_outlook(ticket.round)

    def _find_outlook(self, number: int) -> Outlook:
        """What a ticket on the draw of a round is judged by; a ticket is shown again and again."""
        newest = self._round - 1
        if not newest - self._config.ticket_window < number <= newest:
            return Outlook(newest, None, 0)
        if number not in self._outlooks:
            seal = next(self._ledger.seals_from(number, 1), None)
            is_known = seal is not None and seal.round == number
            self._outlooks[number] = Outlook(
                newest, seal.q if seal and is_known else None, seal.ticket_bits if seal else 0
            )
        return self._outlooks[number]

    def _receive_sample(self, peer: PeerId, body: bytes) -> None:
        """Keep the first thing that a candidate says of its gradient in a round in progress, as it began last."""
        if not self.is_guest(peer):
            return
        sample: SampleHead = decode(body, SampleHead)
        if not is_sample(self._config, sample.report):
            raise RemoteProtocolError("a sample that is none", peer)
        if self._round - 1 <= sample.round <= self._round + 1:
            known, _ = self._samples.get((sample.round, peer), (-1, None))
            if sample.attempt > known:
                self._samples[sample.round, peer] = sample.attempt, sample.report

    async def _redo(self, check: Check) -> None:
        """Check a candidate's work; whoever cannot says nothing."""
        work, start = check.work, self._past.find(check.work.round)
        if start is None:
            return

        def is_false() -> bool:
            own = start.sample(self._config, self._workload, work.candidate)
            return judge_sample(self._config, work.report, own, CHARGE) is not Finding.TRUE

        charge = await self._aside.run(lambda: self._conduct.charge(work.round, work.candidate, is_false))
        if charge:
            self._charged.add(work)

    async def judge(self, charge: Check) -> Finding:
        """Look at a charge with our own eyes, once; whoever no longer has the x of that round cannot."""
        start = self._past.find(charge.work.round)
        if charge not in self._findings and start is not None:
            own = await self._aside.run(lambda: start.sample(self._config, self._workload, charge.work.candidate))
            self._findings[charge] = judge_sample(self._config, charge.work.report, own, AGREE)
        return self._findings.get(charge, Finding.UNKNOWN)
