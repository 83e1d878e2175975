"""
Recovery: one task that settles, with all others, how a halted round goes on (design section 5).

    0       HALT, or RESUMEs of more than half, start it; everyone broadcasts one VIEW of what it holds
    2Δ      one BALLOT for the views it got; ballots of everyone outside the silent are a certificate
    4Δ      where none formed, Dolev–Strong goes on with everyone's view and ballot: f steps of 2Δ more
    after   everyone CONCLUDEs from the final vector; equal conclusions of more than half settle it

While a recovery runs, no phase completes here. HALTs, RESUMEs and settlements are relayed: nobody is left
out of a recovery, and whoever missed a part adopts what the others settled, whenever it arrives. A recovery that
settles nothing leaves the swarm halted: members say RESUME until more than half of the roster do.
"""

from collections.abc import Callable

import structlog
import trio

from btard.errors import BtardError, Undecided
from btard.identity import PeerId, short
from btard.rules.agreement import can_settle, find_elected, find_unvoted
from btard.rules.config import RunConfig
from btard.rules.dolev_strong import OPENING, STEP, compute_end
from btard.rules.marks import Marks
from btard.rules.messages import Ballot, Conclude, Halt, Phase, SignedMessage, Stage, View
from btard.rules.recovery import Decision, Equivocation, compute_views_digest
from btard.swarm.adopting import Adopting, ask_for_settlement
from btard.swarm.board import RECOVERY_PHASES
from btard.swarm.broadcast import Broadcast
from btard.swarm.calls import Calls
from btard.swarm.events import Halted, Observer, Recovered, Stranded
from btard.swarm.fallback import Fallback, read_ballots
from btard.swarm.frames import Kind
from btard.swarm.halting import Resuming
from btard.swarm.ledger import Ledger
from btard.swarm.place import Expectation
from btard.swarm.settlement import (
    Messages,
    Settlement,
    find_equivocations,
    settle_by_ballots,
    settle_by_conclusions,
)
from btard.swarm.viewing import build_view, encode_proofs, make_position
from btard.swarm.voted import Voted
from btard.wire import open_chain

log = structlog.get_logger(__name__)

RESUME_EVERY = 5
"""Δ between two broadcasts of the same RESUME: a link that heals brings nothing back that was lost on it."""
LONGEST_PAUSE_S = 300.0
"""Longest wait before a swarm tries again that has often settled nothing, in seconds."""
STATUS_EVERY_S = 600.0
"""Between two lines that say how long we have been waiting, and whom we reach, in seconds."""
PATIENCE_S = 24 * 3600.0
"""How long a peer stays halted before it stops, in seconds; started again, it resumes from its ledger."""


class Recovery:
    """The recovery of the attempt in progress."""

    def __init__(self, config: RunConfig, broadcast: Broadcast, ledger: Ledger, observe: Observer) -> None:
        self._config, self._broadcast, self._ledger, self._observe = config, broadcast, ledger, observe
        self._board, self._calls = broadcast.board, Calls(config, broadcast)
        self._adopting = Adopting(config, broadcast, ledger, observe)
        self._failure = list[BtardError]()
        self._running, self._fruitless, self._halted_at = False, 0, 0.0
        self._fallback: Fallback | None = None
        self._agreed: Messages | None = None
        self._cast: Stage | None = None
        self.resuming = Resuming(config, broadcast, ledger, self._adopting.find_proof, self._fail)
        self._voted = Voted(config.run_id, broadcast)
        self.on_decision: Callable[[Decision], None] = lambda decision: None
        broadcast.hub.on_control[Kind.CHAIN] = self._receive_chain

    @property
    def marks(self) -> Marks:
        """The marked pairs that we know of."""
        return self._calls.marks

    @marks.setter
    def marks(self, known: Marks) -> None:
        self._calls.marks = known

    @property
    def is_pending(self) -> bool:
        """Whether the round must wait: a recovery runs, or its decision has not been taken up yet."""
        return self._running or self.has_decided or self._can_start()

    @property
    def has_decided(self) -> bool:
        """Whether there is a decision that the round has not taken up yet."""
        return self._adopting.decision is not None

    async def settled(self) -> tuple[Decision, bytes]:
        """Wait for the decision and take it up; with the digest by which the next attempt names it."""
        self._board.call()  # what was said of this attempt before we came to it may count now
        while not self.has_decided:
            await self._board.changed()
        return self._adopting.take_up()

    def halt(self, expectation: Expectation, missing: tuple[PeerId, ...], evidence: tuple[Equivocation, ...]) -> None:
        """Say that the round cannot go on, and why, if that counts: there is one HALT in a recovery.

        Over marked partners alone it would count only with those of f others. Whoever is silent to all has an honest
        member that is no partner of it, or too many partners, and then all halt over it.
        """
        if not evidence and not self._calls.can_halt_over(missing):
            return
        proofs = encode_proofs(evidence)
        self._observe(Halted(str(expectation.stage), missing))
        log.warning("halt", stage=str(expectation.stage), missing=[short(peer) for peer in missing], proofs=len(proofs))
        self._say(Phase.HALT, Halt(make_position(expectation.stage), missing, proofs))

    def end_attempt(self) -> None:
        """Let a recovery settle that the attempt is over: AGREE is complete here, which the others may not know yet."""
        self._broadcast.place.is_agreed = True
        self._board.signal()

    def _say(self, phase: Phase, payload: Halt | View | Ballot | Conclude) -> SignedMessage:
        return self._broadcast.say(self._calls.stage(phase), self._broadcast.place.roster.digest, b"", payload)

    def _can_start(self) -> bool:
        """Whether a recovery is due: something was relayed, or RESUMEs, or AGREE is complete, or there is a HALT.

        The last two move nobody who is halted, and nothing an attempt that is over: whoever finishes a round first that
        the others have left by then is called to no recovery there, in which it would be alone.
        """
        place = self._broadcast.place
        if place.current is None or place.is_over:  # whoever does not know yet what it has signed says nothing
            return False
        if self._adopting.find_relayed() or self.resuming.find_restart() is not None:
            return True
        return not self._fruitless and (place.is_agreed or self._calls.find_halt() is not None)

    def _fail(self, error: BtardError) -> None:
        """Let the run end: others have shown that it goes on without us."""
        self._failure.append(error)
        self._board.call()

    async def run(self) -> None:
        """Serve one recovery after another, for ever; none waits until the round has taken up the one before.

        Raises:
            Banned, Removed: the others went on without us.
            Undecided: the swarm was halted for too long.
        """
        async with trio.open_nursery() as nursery:
            self._spawn = nursery.start_soon
            while True:
                if self._failure:
                    raise self._failure[0]
                if self._can_start():
                    await self._serve()
                else:
                    await self._board.called()

    async def _serve(self) -> None:
        """Adopt what was relayed, or run one recovery; stay halted while nothing is settled."""
        self._running, entered = True, trio.current_time()
        settlement = self._adopting.find_relayed()
        if settlement is None:
            restart = self.resuming.find_restart()
            self._broadcast.place.serial = self._broadcast.place.serial if restart is None else restart
            settlement = await self._recover(resumed=restart is not None)
        if settlement is not None and not self._is_too_few(settlement):
            self._conclude(settlement, entered)
        else:
            await self._stay_halted(settlement)

    async def _recover(self, *, resumed: bool) -> Settlement | None:
        """Run one recovery, from VIEW to settlement; None if it settles nothing."""
        delay_s, place = self._config.delay_s, self._broadcast.place
        entered, tolerated = trio.current_time(), place.roster.tolerated(self._config.byzantine_bound)
        self._fallback = Fallback(self._broadcast, self._calls.stage(Phase.VIEW), tolerated, delay_s)
        self._agreed = None
        is_late, end = entered < place.on_time_from, compute_end(tolerated, delay_s)
        try:
            self._enter(resumed=resumed)
            await self._wait(lambda: self._can_vote(is_late=is_late), Phase.VIEW, entered, 2 * delay_s)
            if self._broadcast.find_said(self._calls.stage(Phase.BALLOT)) is None:  # not from before a restart
                self._cast = self._calls.stage(Phase.BALLOT)
            ballot = self._say(Phase.BALLOT, self._build_ballot()).payload
            assert isinstance(ballot, Ballot)
            self._voted.keep(self._calls.stage(Phase.VIEW), ballot, self._views())
            await self._wait(lambda: False, Phase.BALLOT, entered, OPENING * delay_s)
            if self._settlement() is None:
                await (self._follow(entered + end) if is_late else self._fall_back(ballot, entered + end))
            return self._settlement()
        finally:
            self._fallback = None

    def _enter(self, *, resumed: bool) -> None:
        """Let everyone know by what we enter, and what we hold."""
        for item in self._calls.held(Phase.HALT).values():
            self._broadcast.relay(item)
        self.resuming.show(self._broadcast.others)
        if self._broadcast.place.is_agreed:
            self._broadcast.show_current(self._broadcast.others)
        self._say(Phase.VIEW, self._build_view(resumed=resumed))

    def _can_vote(self, *, is_late: bool) -> bool:
        """Whether nothing is left to wait for: all views are in, or we are late and vote as others did.

        Cheats alone would have us leave out who is there. So more than f of those whose views we hold must have voted:
        no certificate is made without the honest one among them. Or whom we leave out has no link to us.
        """
        place, hub, votes = self._broadcast.place, self._broadcast.hub, self._calls.held(Phase.BALLOT)
        if len(self._views()) == len(place.roster) or self._broadcast.me in votes:  # ours is from before a restart
            return True
        ballot = self._build_ballot()
        if not is_late or ballot not in {vote.payload for vote in votes.values()}:
            return False
        is_vouched = len(votes.keys() - {*ballot.silent}) > place.roster.tolerated(self._config.byzantine_bound)
        return is_vouched or not any(hub.is_connected(PeerId(peer)) for peer in ballot.silent)

    def _build_ballot(self) -> Ballot:
        views = self._views()
        silent = tuple(peer for peer in self._broadcast.place.roster.members if peer not in views)
        return Ballot(silent, compute_views_digest(views))

    async def _wait(self, is_done: Callable[[], bool], phase: Phase, entered: float, until_s: float) -> None:
        """Wait until something is done or settled; what does not come by itself is pulled Δ before the end."""
        delay_s = self._config.delay_s
        with trio.move_on_at(entered + until_s - delay_s):
            await self._until(is_done)
            return
        stage = self._calls.stage(phase)
        self._spawn(self._broadcast.pull, stage, self._broadcast.others, delay_s)
        for peer in self._broadcast.others if phase is Phase.VIEW else ():
            self._spawn(ask_for_settlement, self._broadcast, peer, stage.serial, 2 * delay_s)
        with trio.move_on_at(entered + until_s):
            await self._until(is_done)

    async def _until(self, is_done: Callable[[], bool]) -> None:
        while not is_done() and self._settlement() is None and not self._failure:
            await self._board.called()

    async def _follow(self, end: float) -> None:
        """Wait for what the others conclude, whose steps began before ours: what comes to us in time may be late there.

        What we had concluded before a restart is said again.
        """
        for peer in self._broadcast.others:  # told ballots alone, for we voted, we may lack the views
            self._spawn(
                ask_for_settlement, self._broadcast, peer, self._broadcast.place.serial, 2 * self._config.delay_s
            )
        concluded = self._broadcast.find_said(self._calls.stage(Phase.CONCLUDE))
        if isinstance(concluded, Conclude):
            self._say(Phase.CONCLUDE, concluded)
        await self._wait(lambda: False, Phase.CONCLUDE, end, 2 * STEP * self._config.delay_s)

    async def _fall_back(self, own: Ballot, end: float) -> None:
        """Go on with Dolev–Strong, then conclude from the final vector, and wait for more than half to do the same."""
        assert self._fallback is not None
        roster, delay_s = self._broadcast.place.roster, self._config.delay_s
        tolerated = roster.tolerated(self._config.byzantine_bound)
        log.warning("no certificate formed: Dolev–Strong", serial=self._broadcast.place.serial)
        self._fallback.begin()
        with trio.move_on_at(end):
            await self._until(lambda: False)
            return
        vector = self._fallback.find_vector()
        ballots = read_ballots(vector)
        if not can_settle(roster, ballots, own):
            return
        elected = find_elected(roster, ballots)
        if elected is not None:  # somebody may hold a certificate, by which nobody leaves for what was not voted
            voters = [peer for peer, ballot in ballots.items() if ballot == elected]
            self._agreed = await self._voted.find(self._calls.stage(Phase.VIEW), elected, voters, STEP * delay_s)
            said = Conclude(elected.views, (), ())
        else:
            self._agreed, split = {peer: cast.view for peer, cast in vector.items()}, self._fallback.find_split()
            unvoted = find_unvoted(roster, ballots, split, tolerated)
            said = Conclude(compute_views_digest(self._agreed), unvoted, split)
        if self._agreed is not None:
            self._say(Phase.CONCLUDE, said)
            await self._wait(lambda: False, Phase.CONCLUDE, trio.current_time(), 2 * STEP * delay_s)

    def _settlement(self) -> Settlement | None:
        """What the recovery comes to, as soon as its votes and views are here or another member has shown it."""
        roster = self._broadcast.place.roster
        relayed = self._adopting.find_relayed()
        if relayed or (
            found := settle_by_ballots(roster, self._calls.held(Phase.BALLOT), self._calls.held(Phase.VIEW))
        ):
            return relayed or found
        if self._agreed is None:
            return None
        return settle_by_conclusions(roster, self._calls.held(Phase.CONCLUDE), self._agreed)

    def _is_too_few(self, settlement: Settlement) -> bool:
        """Whether removals would leave fewer members than may go on: then the swarm waits for them."""
        place = self._broadcast.place
        decision = self._adopting.draw(settlement)
        left = place.roster.without(decision.leaving)
        return len(left) < self._config.min_roster and bool({*decision.leaving} - {*decision.banned})

    async def _stay_halted(self, settlement: Settlement | None) -> None:
        """Say why, pause if this is not the first time, and say RESUME until something starts a recovery.

        Raises:
            Undecided: nothing did for PATIENCE_S.
        """
        place, now = self._broadcast.place, trio.current_time()
        reason = (
            f"only {len(self._views())} of {len(place.roster)} members are heard and agree; more than half are needed"
            if settlement is None
            else f"fewer members than min_roster ({self._config.min_roster}) would be left"
        )
        if settlement is not None:
            self._adopting.lay_aside(settlement)
            place.serial = max(place.serial, settlement.stage.serial)
        place.serial += 1
        self._halted_at = self._halted_at if self._fruitless else now
        pause_s = min(2**self._fruitless * self._config.delay_s, LONGEST_PAUSE_S) if self._fruitless else 0.0
        self._fruitless = min(self._fruitless + 1, 32)
        self._observe(Stranded(place.round, place.serial, reason))
        log.warning("the swarm is halted and waits", reason=reason, serial=place.serial, pause_s=pause_s)
        with trio.move_on_after(pause_s):
            await self._until_started()
        await self._ask_to_resume(reason)

    async def _ask_to_resume(self, reason: str) -> None:
        place, due = self._broadcast.place, trio.current_time() + STATUS_EVERY_S
        while not self._can_start() and not self._failure:
            if trio.current_time() - self._halted_at > PATIENCE_S:
                raise Undecided(f"the swarm was halted for a day: {reason}; start again to go on waiting")
            if trio.current_time() >= due:
                due += STATUS_EVERY_S
                self._tell_status(reason)
            self.resuming.say(place.serial)
            with trio.move_on_after(RESUME_EVERY * self._config.delay_s):
                await self._until_started()

    def _tell_status(self, reason: str) -> None:
        """Say that we wait still: whoever is cut off cannot know whether the others went on without it."""
        place, others = self._broadcast.place, self._broadcast.others
        waited_min = (trio.current_time() - self._halted_at) / 60
        linked = len(self._broadcast.hub.connected & set(others))
        line = (
            f"{reason}; this peer has waited {waited_min:.0f} minutes and has links to {linked} of {len(others)} other "
            "members. It waits for up to a day, and if they went on without it the first one that it hears will say so"
        )
        self._observe(Stranded(place.round, place.serial, line))
        log.warning("the swarm is halted and waits", reason=line, serial=place.serial)

    async def _until_started(self) -> None:
        while not self._can_start() and not self._failure:
            await self._board.called()

    def _conclude(self, settlement: Settlement, entered: float) -> None:
        place = self._broadcast.place
        decision = self._adopting.adopt(settlement)
        place.serial = max(place.serial, settlement.stage.serial + 1)
        place.is_over = decision.agreed or decision.changes_roster
        if settlement.stage != self._cast or self._broadcast.me not in {vote.sender for vote in settlement.votes}:
            place.take_up(trio.current_time(), self._config.delay_s)  # it may be older than what we know of
        self.on_decision(decision)
        took_s, is_fallback = trio.current_time() - entered, not settlement.is_certificate
        removed = (*decision.removed, *decision.overmarked)
        if decision.agreed:  # no trouble: every departure by a transcript ends like this
            log.info("all are sure of AGREE", attempt=place.attempt, took_s=took_s, is_fallback=is_fallback)
        else:
            self._observe(Recovered(place.round, removed, decision.banned, took_s, is_fallback=is_fallback))
        self._fruitless, self._running = 0, False
        self._board.call()

    def _build_view(self, *, resumed: bool) -> View:
        calls, halt = (*self._calls.held(Phase.HALT).values(), *self.resuming.held), self._calls.find_halt()
        envelope = b"" if resumed or halt is None else halt.envelope
        evidence, marks = self._calls.find_equivocations(), self._calls.marks
        return build_view(self._broadcast, calls, evidence, marks, envelope, resumed=resumed)

    def _views(self) -> dict[PeerId, SignedMessage]:
        """The views that count: not of those who are proven to equivocate, as far as any view shows it."""
        views = self._calls.held(Phase.VIEW)
        shown = find_equivocations(self._config, (view.payload for view in views.values()))  # type: ignore[misc]
        proven = (item for item in (*shown, *self._board.equivocations()) if item.stage.phase in RECOVERY_PHASES)
        culprits = {item.culprit for item in proven}
        return {peer: view for peer, view in views.items() if peer not in culprits}

    def _receive_chain(self, peer: PeerId, body: bytes) -> None:
        """Feed the fallback of the recovery in progress; chains of others, or without one, are of no use."""
        if self._fallback is not None and peer in self._broadcast.place.roster:
            cast = open_chain(self._config.run_id, self._broadcast.place.roster, body)
            if cast is not None:
                self._fallback.receive(cast)
