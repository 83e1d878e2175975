"""The loop over rounds, and how a peer finds its place in it: at the start, after a restart, in a new attempt."""

from dataclasses import replace

import structlog
import trio

from btard.errors import Banned, LocalProtocolError, Removed, Undecided, Unreachable
from btard.identity import PeerId
from btard.net import Hub
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.binding import recall_bound
from btard.swarm.bound_data import BoundData
from btard.swarm.catching_up import catch_up, recall, recall_gradient
from btard.swarm.committing import arrive
from btard.swarm.compute import AttendedCompute, Compute
from btard.swarm.events import RoundDone
from btard.swarm.exchange import Exchange, NewAttempt, Stalls
from btard.swarm.joining.reception import Reception
from btard.swarm.ledger import Ledger
from btard.swarm.links import PATIENCE_S, Directory, Links
from btard.swarm.membership import Membership
from btard.swarm.parting import make_doubt
from btard.swarm.records import encode_work
from btard.swarm.recovery import Recovery
from btard.swarm.restoring import Start
from btard.swarm.round import close_run, run_round
from btard.swarm.services import WARM_UP_S, Deadlines, Services
from btard.swarm.standing import Standing
from btard.swarm.state import State, Work
from btard.swarm.transfers import Transfers
from btard.swarm.updates import Updates

log = structlog.get_logger(__name__)

LINGERING = 4
"""Δ for which a peer that has ended stays for others: one that crashed a moment before may be away for 1.5Δ."""
COMPANY_PATIENCE_S = 600.0
"""How long a restarted peer waits for more than half of the members: all may be starting again, by hand."""


class Rounds:
    """The loop over rounds, and the place in the run that its services share."""

    def __init__(
        self,
        member: Membership,
        hub: Hub,
        directory: Directory,
        ledger: Ledger,
        nursery: trio.Nursery,
        transfers: Transfers,
        updates: Updates,
        start: Start,
    ) -> None:
        config, delay_s = member.config, member.config.delay_s
        self._config, self._observe, self._hub, self._ledger = config, member.observe, hub, ledger
        self._snapshots, self._updates, self._nursery = member.snapshots, updates, nursery
        self._broadcast, self._work = transfers.broadcast, start.work
        self._is_restart, self._is_entry = start.is_restart, start.is_entry
        self._compute: Compute = member.compute
        self._recovery = Recovery(config, self._broadcast, ledger, member.observe)
        self._standing = Standing(config, hub, ledger, self._broadcast)
        self._deadlines = Deadlines.of(config, start.work.state.seal.gradient_ms)
        stalls = Stalls(delay_s)
        exchange = Exchange(self._broadcast, self._recovery, stalls, delay_s, nursery.start_soon)
        self._reception = Reception(
            config,
            member.identity.peer_id,
            hub,
            member.workload,
            member.conduct,
            member.aside or member.compute,
            ledger,
            updates,
            nursery.start_soon,
        )
        self._services = Services(
            config,
            member.identity,
            member.workload,
            member.conduct,
            AttendedCompute(member.compute, lambda task: exchange.attend(self._work, task)),
            ledger,
            self._broadcast,
            exchange,
            transfers.slices,
            transfers.parts,
            self._deadlines.after_restart() if start.is_restart else self._deadlines,
            updates,
            BoundData(member.data_dir, ledger, member.disk or member.compute),
            self._reception,
            member.observe,
            nursery.start_soon,
            member.goodbye,
        )
        self._has_left, self._taking_part = False, trio.CancelScope()
        self._standing.on_left = self._recovery.resuming.on_left = self._leave
        self._noted: dict[int, object] = {}
        patience_s = 0.0 if start.is_restart or start.is_entry else PATIENCE_S
        place = self._broadcast.place
        self._links = links = Links(hub, member.identity.peer_id, directory, lambda: place.roster, patience_s)
        self._move_to(self._work)
        self._begin_round()
        self._broadcast.recall((*start.heard, *start.own), start.serial)
        if not start.may_have_spoken:
            self._arrive()
        self._broadcast.on_signing = self._note_place
        hub.on_connected, hub.on_lost = self._greet, self._broadcast.note_lost
        if start.is_restart:
            self._reception.take_in(self._work, self._work.state.newcomers)
        for task in (self._recovery.run, stalls.run, links.run):
            nursery.start_soon(task)

    async def run(self) -> State:
        """Run all rounds and the closing COMMIT; return the final state.

        Raises:
            Unreachable: after a restart, not even half of the members can be reached.
            Undecided: the same after the last round, while nobody has signed for us how it ended.
        """
        with self._taking_part:
            return await self._take_part()
        log.info("the others have signed the seal without this peer, which said goodbye, and went on")
        self._has_left = True
        return await self._close()

    def _leave(self) -> None:
        """Take no part any more, for the others have signed the seal without us, as we wished."""
        if not self._has_left:
            self._taking_part.cancel()

    async def _take_part(self) -> State:
        if not await self._find_company():
            log.info("nobody is there any more, and the last seal is signed: the run is over")
            self._ledger.record_ending("finished", "")
            return self._work.state
        if self._is_restart:
            recall(self._services, self._work)
            await recall_bound(self._services)
            self._nursery.start_soon(catch_up, self._services, self._hub)
        if not self._is_entry:
            await self._ask_around()
        if self._is_restart:
            self._broadcast.place.come_back(trio.current_time(), self._config.delay_s)
        self._arrive()  # no earlier where we may have signed what our ledger does not know
        if self._is_restart:
            await self._recall_gradient()
        self._nursery.start_soon(self._watch_standing)
        return await self._run_rounds()

    async def _recall_gradient(self) -> None:
        """Hold our gradient of the round before again; whatever attempt begins meanwhile, we are in it with that."""
        is_done, previous = trio.Event(), self._work.previous
        services = replace(self._services, compute=self._compute)

        async def run() -> None:
            await recall_gradient(services, previous)
            is_done.set()

        self._nursery.start_soon(run)
        while not is_done.is_set():
            try:
                await self._services.exchange.attend(self._work, is_done.wait)
            except NewAttempt as change:
                self._begin_attempt(change)

    def _arrive(self) -> None:
        if self._broadcast.place.current is None:
            arrive(self._services, self._work, is_closing=self._work.round > self._config.rounds)

    async def _find_company(self) -> bool:
        """Wait for links: to all before round 1, to more than half after a restart; False if it is over for certain.

        Whoever said goodbye may be gone by now, unless the run ends with this round: then all stay to its end.
        """
        others, limit_s = self._broadcast.others, WARM_UP_S
        if self._is_entry:  # more than half handed over our place a moment ago
            return True
        if not self._is_restart:
            with trio.move_on_after(limit_s):
                await self._hub.wait_connected(others)
            return True
        is_over = self._work.round > self._config.rounds
        staying = self._work.roster.without(self._work.leavers)
        company = staying if staying and not is_over else self._work.roster
        needed = company.majority - 1
        with trio.move_on_after(limit_s if is_over else COMPANY_PATIENCE_S) as scope:
            while len(self._hub.connected & company.everyone) < needed:  # noqa: ASYNC110  bounded above
                await trio.sleep(self._config.delay_s / 8)
        if scope.cancelled_caught and not is_over:
            wanted = len(company.everyone & set(others))
            raise Unreachable(f"{wanted} other members, and less than half answer; join again when they are back")
        if scope.cancelled_caught and not self._ledger.signatures(self._work.round - 1):
            raise make_doubt(self._work.round - 1)
        return not scope.cancelled_caught

    async def _ask_around(self) -> None:
        """Learn whether we are a member still, and whether our ledger knows all that we have sent.

        Raises:
            Banned, Removed: the swarm went on without us.
            ConfigError: the ledger is an older copy.
        """
        link_s = 2 * self._config.delay_s if self._is_restart else 0.0
        await self._nursery.start(self._standing.ask, self._find_base(), link_s)
        if (unknown := self._broadcast.find_unknown()) is None:
            return
        log.error("others hold messages of ours that our ledger does not: nothing is signed", newest=str(unknown))
        with trio.move_on_after(COMPANY_PATIENCE_S):  # until a seal tells how it ended
            while True:
                await self._standing.ask(self._find_base())
                await trio.sleep(self._config.delay_s)
        self._broadcast.require_whole_ledger()

    def _find_base(self) -> Seal:
        """The newest seal that is signed for certain: that of the round before the last one."""
        return next(self._ledger.seals_from(max(0, self._work.round - 2), 1))

    async def _watch_standing(self) -> None:
        """Ask whether the swarm went on without us, whenever we are overdue, and in the first round after a restart.

        What is waited for there may not come any more, and it is waited for long.
        """
        while True:
            await trio.sleep(4 * self._config.delay_s)
            if self._broadcast.place.overdue or self._services.deadlines is not self._deadlines:
                await self._standing.ask(self._find_base())

    async def _run_rounds(self) -> State:
        while self._work.round <= self._config.rounds and not self._has_left:
            await self._run_one_round()
        return await self._close()

    async def _run_one_round(self) -> None:
        work, started = self._work, trio.current_time()
        try:
            state = await run_round(self._services, work)
        except NewAttempt as change:
            self._begin_attempt(change)
            return
        self._observe(
            RoundDone(
                work.round,
                work.attempt - work.first_attempt + 1,
                trio.current_time() - started,
                work.roster.members,
                state.assignments,
                state,
            )
        )
        self._work, work.previous = Work(self._config, state, work), None
        if self._services.deadlines is not self._deadlines:  # the first round after a restart is over
            self._services = replace(self._services, deadlines=self._deadlines)
        self._move_to(self._work)
        self._begin_round()
        self._reception.hand_over(self._work)
        self._forget_updates(work.round)

    async def _close(self) -> State:
        while not self._has_left:
            try:
                await close_run(self._services, self._work)
            except NewAttempt as change:
                self._begin_attempt(change)
                if self._work.round <= self._config.rounds:
                    return await self._run_rounds()
                continue
            break
        if self._has_left:
            self._ledger.record_ending("left", "")
        self._ledger.sync()
        self._updates.give_room_back()
        await self._linger()
        if not self._has_left:  # no earlier: whoever is killed meanwhile comes back for those who were killed before
            self._ledger.record_ending("finished", "")
        return self._work.state

    async def _linger(self) -> None:
        """Let our last messages out, and serve those who may still lack one, or come back for it."""
        with trio.move_on_after(2 * self._config.delay_s):  # some may take nothing any more
            await self._hub.flush()
        with trio.move_on_after(LINGERING * self._config.delay_s):
            while self._hub.connected:  # noqa: ASYNC110  bounded above, and nobody else waits for the last link to go
                await trio.sleep(self._config.delay_s / 8)

    def _begin_attempt(self, change: NewAttempt) -> None:
        """Go on without those who leave, in this round or, if its CONFIRM was split, in the one before."""
        work, me = self._work, self._services.me
        if me in change.banned:
            raise Banned("the roster convicted this peer; the ledger has the proof")
        if me in change.removed:
            raise Removed("the roster went on without this peer, without blame: it was silent, late or different")
        if me in change.left:
            self._has_left = True
            return
        if change.resume_round == work.round - 1 and (before := work.reopen_previous()) is not None:
            self._work = before
        elif change.resume_round != work.round:
            raise LocalProtocolError(f"cannot resume round {change.resume_round} from round {work.round}")
        self._work.forget_signatures({*change.banned, *change.removed})
        roster = Roster.of((*work.roster.without(change.leaving).members, *change.joined))
        if len(roster) < self._config.min_roster:
            raise Undecided(f"only {len(roster)} members are left, fewer than min_roster; the swarm stops")
        self._work.dismissed |= self._work.state.newcomers & {*change.removed}
        banned = self._work.banned | set(change.banned)  # not whoever left with the seal that is taken back
        self._work.begin_attempt(roster, banned, work.attempt + 1, change.reason)
        self._move_to(self._work)
        self._broadcast.arriving = frozenset(self._work.awaited)
        if change.joined:
            self._links.follow()
            self._reception.take_in(self._work, change.joined)

    def _move_to(self, work: Work) -> None:
        self._services.exchange.follow(work)
        place = self._broadcast.place
        if place.attempt != work.attempt:
            place.serial, place.is_agreed, place.is_over = 0, False, False
            self._broadcast.board.call()  # HALTs of it may have come before
        place.round, place.attempt, place.roster, place.common = work.round, work.attempt, work.roster, work.common

    def _begin_round(self) -> None:
        work = self._work
        self._services.slices.begin_round(work.round, len(work.roster.without(work.leavers)))
        self._services.bound.forget(work.round, work.attempt)
        self._broadcast.board.forget(work.round - 1, work.attempt)
        self._broadcast.forget_lost()
        self._broadcast.arriving = frozenset(work.awaited)
        self._reception.begin_round(work.state)
        self._links.follow()

    def _greet(self, peer: PeerId) -> None:
        """Say again what a peer whose link was made anew may have missed: it was away, even if we hear so only now."""
        self._broadcast.note_lost(peer)
        self._reception.remind(peer)
        self._broadcast.resend(peer)
        if self._broadcast.is_member(peer):
            self._recovery.resuming.show((peer,))

    def _note_place(self) -> None:
        """Have our place in the run on disk with the message that is signed there."""
        work = self._work
        before = work.previous if work.attempt == work.first_attempt else None
        if before is not None and work.round not in self._noted:
            self._note(before)  # with what it was marked with at its end, if it is run again
        self._note(work)
        self._noted = {work.round: self._noted[work.round]}  # a round that is run again comes to the next one anew

    def _note(self, work: Work) -> None:
        serial = self._broadcast.place.serial
        place = (work.round, work.attempt, serial, work.marks, work.later_pairs, work.awaited_pairs, work.common)
        if place != self._noted.get(work.round):
            self._ledger.record_work(work.round, work.attempt, encode_work(work, serial))
            self._noted[work.round] = place

    def _forget_updates(self, finished: int) -> None:
        """Keep the aggregates since the last snapshot but one that a restart could begin with."""
        if finished % self._config.state_interval == 0:
            bases = [number for number in self._snapshots.rounds() if number <= finished - 2]
            if len(bases) > 1:
                self._updates.forget(bases[-2])
