"""
On probation: a candidate follows the run, works in each of its rounds, and is a member one day (design section 6).

It is outside every transcript. It believes what more than half of the members hand over alike, steps x by the
aggregate that more than f of them name alike (``stepping.py``), and tells all members a sample of its gradient.
The handover that names it a newcomer is where it begins as a member.
"""

import math
from collections.abc import Callable

import structlog
import trio

from btard.errors import Banned, NetworkError, Refused, RemoteProtocolError, Removed
from btard.identity import JoinTicket, PeerId, short
from btard.net import Hub
from btard.rules.admission import find_closure
from btard.rules.seal import Seal
from btard.rules.succession import roster_of
from btard.swarm.events import Admitted, Promoted, Sampled
from btard.swarm.frames import Kind, Receipt, SampleHead
from btard.swarm.joining.application import Application
from btard.swarm.joining.handover import Handovers
from btard.swarm.joining.past import Worksite
from btard.swarm.joining.stepping import Steps
from btard.swarm.joining.ticket_desk import FALSE, Reply, explain
from btard.swarm.membership import Membership
from btard.swarm.records import WorkRecord, open_state, open_work
from btard.swarm.restoring import Start, Vectors
from btard.swarm.state import is_named_by
from btard.swarm.transfers import Transfers
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

PATIENCE = 20
"""Δ for which no place is handed over before a candidate asks how the run goes: a recovery takes less."""
MAX_BEHIND = 64
"""Rounds that are made up for by their aggregates, one after another; whoever is further behind takes a snapshot."""
PRESENT_S = 60.0
"""Most between two showings of our ticket to members that have not taken it; the first come sooner."""
FIRST_LOOK = 4
"""Δ after which who waits looks for the first time how the run goes on."""
LOOK_S = 60.0
"""Most between two such looks."""
TICKET_TIMEOUT = 4
"""Δ that a member may take to look at a ticket, which it does not evaluate then."""
OVER = "the run is over: there is nothing left to join"


class Candidacy:
    """One stranger's way into the roster."""

    def __init__(
        self,
        member: Membership,
        hub: Hub,
        transfers: Transfers,
        application: Application,
        handovers: Handovers,
        follow_roster: Callable[[], None],
    ) -> None:
        self._member, self._config, self._hub = member, member.config, hub
        self._transfers, self._application, self._handovers = transfers, application, handovers
        self._follow_roster = follow_roster
        self._me = member.identity.peer_id
        self._states: dict[int, Vectors] = {}
        self._pauses: dict[PeerId, float] = {}  # before a member that refused us sees a ticket again
        self._steps = Steps(member, hub, lambda: handovers.roster)

    async def run(self) -> Start:
        """Return where we begin as a member, once a ticket of ours was drawn and probation is over.

        Raises:
            Banned: our work was false.
            Removed: we were dismissed, or did not come through probation in time.
            Refused: the run admits nobody, or is over.
            Unreachable: nobody takes our ticket, or gives us the state.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._present)
            place = await self._wait_for_admission()
            nursery.cancel_scope.cancel()
        self._application.spend_ticket()
        self._member.observe(Admitted(place.seal.round))
        return await self._go_on(place)

    async def _wait_for_admission(self) -> WorkRecord:
        """Return the first place with us in it; one without us tells of an earlier time here, which is over.

        Raises:
            Banned: it ended by a ban.
        """
        while True:
            place = await self._handovers.next(None)
            known = {*place.roster, *place.newcomers, *(item.peer for item in place.seal.candidates)}
            if self._me in known or place.round > self._config.rounds:
                return place
            if self._me in place.seal.banned:
                self._require_probation(place.seal)
            self._handovers.forget()

    async def _go_on(self, place: WorkRecord) -> Start:
        """Work in every round that is handed over, until it is one that we begin as a member."""
        while True:
            self._application.note_seal(place.seal)
            if place.round > self._config.rounds:
                raise Refused(OVER)
            if self._me in place.roster:
                if (start := await self._enter(place)) is not None:
                    return start
            elif self._me in place.newcomers:
                self._stand_by(place)
                await self._come_to(place.seal)
            else:
                self._require_probation(place.seal)
                await self._follow(place)
            place = await self._wait_for_place(place)

    async def _wait_for_place(self, last: WorkRecord) -> WorkRecord:
        """Return the next place; where none comes, ask whether we are on probation still.

        Raises:
            Banned, Removed: we are not, or are members and nobody tells us where to begin.
        """
        while True:
            with trio.move_on_after(PATIENCE * self._config.delay_s):
                return await self._handovers.next(last)
            seal = await self._application.find_seal()
            if seal.round > last.seal.round + 1:
                self._require_probation(seal)

    async def _present(self) -> None:
        """Show our tickets until cancelled, one after another: each is too old some day.

        The state is fetched once we are admitted, and not before: most who wait would fetch it many times over.

        Raises:
            Refused: the run admits nobody, or is over.
            Unreachable: nobody is there any more.
        """
        if closure := find_closure(self._config, None):
            raise Refused(closure)
        while True:
            seal = await self._application.find_seal()
            self._require_open(seal)
            ticket = self._member.conduct.ticket(await self._application.make_ticket(seal))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show_to_all, ticket)
                await self._watch_until(ticket.round + self._config.ticket_window)
                nursery.cancel_scope.cancel()

    async def _watch_until(self, last: int) -> None:
        """Return once a round is sealed; who waits for it looks about as often as that needs, and in turn at members.

        Raises:
            Refused: the run is over.
        """
        seal, pause_s = await self._application.find_seal(), FIRST_LOOK * self._config.delay_s
        while seal.round < last:
            since, before = trio.current_time(), seal.round
            await trio.sleep(min(pause_s, LOOK_S))
            seal = await self._application.find_seal()
            if seal.round >= self._config.rounds:
                raise Refused(OVER)
            self._require_open(seal)
            self._handovers.trust(roster_of(seal))
            self._follow_roster()
            round_s = (trio.current_time() - since) / max(1, seal.round - before)
            pause_s = max(self._config.delay_s, round_s * (last - seal.round))

    def _require_open(self, seal: Seal) -> None:
        """Return while we may still be admitted, or have been.

        Raises:
            Refused: nobody is any more.
        """
        closure = find_closure(self._config, seal)
        if closure and self._me not in {*seal.roster, *(item.peer for item in seal.candidates)}:
            raise Refused(closure)

    async def _show_to_all(self, ticket: JoinTicket) -> None:
        """Show a ticket to every member that there is a link to, again to those that did not take it, ever less often.

        All at once: more than f must have taken it, and none that keeps silent may come before them. Whoever refused
        the ticket before is as patient with this one. It waits in a member's memory: whoever comes back on another
        link is shown it again. Never returns.
        """
        held, due = dict[PeerId, int](), dict[PeerId, float]()

        async def show(peer: PeerId, link: int) -> None:
            reply = await self._show(ticket, peer)
            if reply is Reply.TAKEN:
                held[peer] = link
                self._pauses.pop(peer, None)
            elif reply is Reply.SHUT or reply in FALSE:
                due[peer] = math.inf  # shown again it would cost us the link
            else:
                pause_s = self._pauses.get(peer, self._config.delay_s)
                due[peer], self._pauses[peer] = trio.current_time() + pause_s, min(2 * pause_s, PRESENT_S)

        with trio.move_on_after(2 * self._config.delay_s):
            await self._hub.wait_connected([*self._handovers.roster.without([self._me]).members])
        while True:
            now = trio.current_time()
            async with trio.open_nursery() as nursery:
                for peer in self._handovers.roster.members:
                    link = self._hub.find_link(peer)
                    if link is not None and held.get(peer) != link and due.get(peer, now) <= now:
                        nursery.start_soon(show, peer, link)
            await trio.sleep(self._config.delay_s)

    async def _show(self, ticket: JoinTicket, peer: PeerId) -> Reply | None:
        """Return what a member says to our ticket, None if nothing."""
        try:
            timeout_s = TICKET_TIMEOUT * self._config.delay_s
            answer = await self._hub.request(peer, Kind.JOIN_TICKET, encode(ticket), timeout_s=timeout_s)
            reply = Reply(decode(answer.head, Receipt).reply)
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("a member did not look at our ticket", peer=short(peer), reason=str(error))
            return None
        if reply is not Reply.TAKEN:
            log.info("a member does not take our ticket", peer=short(peer), reason=explain(reply))
        return reply

    def _require_probation(self, seal: Seal) -> None:
        """Return while we are on probation.

        Raises:
            Banned, Removed: we are not any more.
        """
        if self._me in seal.banned:
            raise Banned("the roster convicted this candidate: what it said of its gradient was false")
        if self._me not in {item.peer for item in seal.candidates}:
            raise Removed(
                f"by round {seal.round} this peer is no candidate any more, without blame: its gradients differ from "
                "others', or it was away or too slow in too many rounds; it may come back with a new ticket"
            )

    async def _follow(self, place: WorkRecord) -> None:
        """Come to the state that a place names, and work in its round."""
        self._stand_by(place)
        vectors = await self._come_to(place.seal)
        if vectors is None:
            return
        here, member = Worksite(place.round, vectors[0], place.seal.q), self._member
        report = await member.compute.run(
            lambda: member.conduct.sample(place.round, lambda: here.sample(self._config, member.workload, self._me))
        )
        body = encode(SampleHead(place.round, place.first_attempt, report))
        for peer in self._handovers.roster.members:
            self._hub.send(peer, Kind.SAMPLE, body)
        worked = next(item.worked for item in place.seal.candidates if item.peer == self._me)
        self._member.observe(Sampled(place.round, worked, self._config.probation))

    def _stand_by(self, place: WorkRecord) -> None:
        """Take what members send us from the moment that they count us among them."""
        self._follow_roster()
        where, roster = self._transfers.broadcast.place, self._handovers.roster
        where.round, where.attempt, where.roster = place.round, place.attempt, roster
        where.last = where.current = None
        self._transfers.slices.begin_round(place.round, len(roster))
        self._transfers.parts.begin_attempt(place.round, place.attempt, len(roster))
        self._transfers.broadcast.board.forget(place.round - 1, place.attempt)

    async def _come_to(self, seal: Seal) -> Vectors | None:
        """Return the state that a seal names, or None if we are further already.

        By steps from a state that we have, if they are few; else all of it is fetched anew, as far as it is sealed.
        A round that is run again may end in another state: then we go back to the one before.
        """
        await self._forget_void(seal)
        while max(self._states, default=-1) < seal.round:
            newest = max(self._states, default=None)
            if newest is None or seal.round - newest > MAX_BEHIND:
                await self._fetch_state(seal)
            elif (after := await self._steps.take(seal, newest, before := self._states[newest])) is not None:
                self._states = {newest: before, seal.round: after}
            else:
                self._states = {}
        return self._states.get(seal.round)

    async def _fetch_state(self, wanted: Seal) -> None:
        """Have the newest sealed state, or one that is newer still where members keep too little of that by now.

        Raises:
            Banned, Removed, Refused: while we tried we ceased to be a candidate, or the run ended.
            Unreachable, RemoteProtocolError: nobody gives it, and no round is sealed for ``PATIENCE`` Δ.
        """
        newest, since = -1, trio.current_time()
        while True:
            try:
                finished, vectors = await self._application.fetch_state()
            except (NetworkError, RemoteProtocolError) as error:
                seal = await self._application.find_seal()
                self._require_place(seal, wanted)
                if seal.round > newest:
                    newest, since = seal.round, trio.current_time()
                elif trio.current_time() > since + PATIENCE * self._config.delay_s:
                    raise
                log.info("the state is fetched anew", round=seal.round, reason=str(error))
                await trio.sleep(self._config.delay_s)
            else:
                self._states = {finished: vectors}
                return

    def _require_place(self, seal: Seal, known: Seal) -> None:
        """Return while a seal later than one that we had a place by leaves us that place.

        Raises:
            Banned, Removed: it does not.
            Refused: it is the last of the run.
        """
        if seal.round >= self._config.rounds:
            raise Refused(OVER)
        if seal.round > known.round and self._me not in seal.roster:
            self._require_probation(seal)

    async def _forget_void(self, seal: Seal) -> None:
        """Forget what we took for the state after a round, where its seal names another one."""
        if (known := self._states.get(seal.round)) is None:
            return
        if not await self._member.compute.run(lambda: is_named_by(seal, *known, self._config.chunk_size)):
            del self._states[seal.round]

    async def _enter(self, place: WorkRecord) -> Start | None:
        """Return our start as a member: a place that more than half of the roster handed over, with its state.

        None if the swarm is further already.
        """
        self._stand_by(place)
        vectors = await self._come_to(place.seal)
        if vectors is None:
            return None
        self._member.observe(Promoted(place.round))
        return Start(open_work(self._config, place, open_state(place, *vectors), None), is_entry=True)
