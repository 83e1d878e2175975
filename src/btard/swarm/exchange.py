"""
One phase from sending to agreement: say our part, wait for everyone's, recover if someone's never comes.

There is no common clock. A message of the next phase proves that its sender holds all of this one,
so whoever lacks something pulls it first; HALT is said only when nobody serves it within 3Δ of the
deadline (attacks A6).
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from btard.identity import Context, PeerId, digest
from btard.rules.marks import Marks, compute_marks_digest
from btard.rules.messages import Agree, AnyPayload, Phase, SignedMessage, Stage, Transcript
from btard.rules.recovery import Decision, Equivocation
from btard.swarm.board import Board
from btard.swarm.broadcast import Broadcast
from btard.swarm.place import Expectation
from btard.swarm.recovery import Recovery
from btard.swarm.state import Work

Spawn = Callable[..., None]
T = TypeVar("T")

IN_FLIGHT = 1 / 4
"""Δ for which a message may be on its way after the next phase of somebody else was heard, before it is pulled."""


class NewAttempt(Exception):
    """The attempt is void: members leave or join, and the round resumes at AGGREGATE under the same commitments."""

    def __init__(
        self,
        resume_round: int,
        reason: bytes,
        *,
        banned: tuple[PeerId, ...] = (),
        removed: tuple[PeerId, ...] = (),
        left: tuple[PeerId, ...] = (),
        joined: tuple[PeerId, ...] = (),
    ) -> None:
        super().__init__()
        self.resume_round, self.reason = resume_round, reason
        self.banned, self.removed, self.left, self.joined = banned, removed, left, joined

    @property
    def leaving(self) -> tuple[PeerId, ...]:
        """All who are no members from here on."""
        return (*self.banned, *self.removed, *self.left)


class Stalls:
    """How long this peer's own event loop stood still, in seconds since the start."""

    def __init__(self, delay_s: float) -> None:
        self._tick_s, self._limit_s = delay_s / 4, delay_s / 2
        self.total_s = 0.0

    async def run(self) -> None:
        """Measure for ever; only stalls beyond Δ/2 count, so that deadlines move for a reason."""
        while True:
            due = trio.current_time() + self._tick_s
            await trio.sleep_until(due)
            late = trio.current_time() - due
            if late > self._limit_s:
                self.total_s += late


@dataclass
class Patience:
    """When to pull what is missing, and when to halt: deadline, deadline + 2Δ, deadline + 3Δ."""

    deadline: float
    delay_s: float
    pulls: int = 0

    @property
    def next_pull(self) -> float:
        """When the next pull is due."""
        return self.deadline + 2 * self.pulls * self.delay_s

    @property
    def halt(self) -> float:
        """When waiting ends."""
        return self.deadline + 3 * self.delay_s


class Exchange:
    """Runs phases, one after another, for the round in progress."""

    def __init__(self, broadcast: Broadcast, recovery: Recovery, stalls: Stalls, delay_s: float, spawn: Spawn) -> None:
        self._broadcast, self._recovery, self._stalls = broadcast, recovery, stalls
        self._delay_s, self._spawn = delay_s, spawn
        self._reconciled: set[tuple[PeerId, bool]] = set()
        self._postponed: tuple[Decision, bytes] | None = None
        self._told_in, self._told = (0, 0), set[PeerId]()
        self._overtaken, self._taken_up, self._waiting_out = math.inf, 0, trio.CancelScope()
        self._work: Work | None = None
        recovery.on_decision = self._hear

    @property
    def board(self) -> Board:
        """The messages held."""
        return self._broadcast.board

    async def run(
        self,
        work: Work,
        phase: Phase,
        payload: AnyPayload,
        *,
        wait_s: float,
        serial: int = 0,
        is_valid: Callable[[SignedMessage], bool] = lambda message: True,
    ) -> Transcript:
        """Return the transcript of a phase in which we say ``payload``.

        Raises:
            NewAttempt: a recovery decided that somebody leaves.
        """
        expectation = self._begin(work, phase, payload, serial, is_valid)
        transcript = await self._collect(work, expectation, wait_s)
        work.chain = transcript.digest
        return transcript

    def _begin(
        self, work: Work, phase: Phase, payload: AnyPayload, serial: int, is_valid: Callable[[SignedMessage], bool]
    ) -> Expectation:
        """Move to a phase and say our part of it."""
        self._follow_postponed(work)
        self._share_marks(work)
        is_commit = phase is Phase.COMMIT
        roster = work.electorate if is_commit else work.roster  # also where we come back after newcomers were taken in
        signed_roster = work.state.roster.digest if is_commit else work.roster.digest
        previous = work.state.chain if is_commit else work.chain
        expectation = Expectation(work.stage(phase, serial), roster, signed_roster, previous, is_valid)
        self._move_to(expectation)
        self.board.signal()  # whoever catches up asks about this stage
        self._broadcast.say(expectation.stage, signed_roster, previous, payload)
        return expectation

    async def listen(
        self, work: Work, phase: Phase, *, wait_s: float, is_valid: Callable[[SignedMessage], bool]
    ) -> Transcript:
        """Return the transcript of the COMMITs that were said before we were a member, from those who hold it.

        Raises:
            NewAttempt: a recovery decided that somebody leaves.
        """
        expectation = self.arrive(work, phase, is_valid)
        self._spawn(self._broadcast.pull, expectation.stage, self._broadcast.others, 2 * self._delay_s)
        return await self._collect(work, expectation, wait_s)

    def arrive(self, work: Work, phase: Phase, is_valid: Callable[[SignedMessage], bool]) -> Expectation:
        """Be in the COMMIT with which we begin, where a recovery may come before we have anything to say."""
        state = work.state
        expectation = Expectation(work.stage(phase), work.electorate, state.roster.digest, state.chain, is_valid)
        self._share_marks(work)
        self._move_to(expectation)
        self.board.call()  # HALTs that came before may count now; elsewhere ``_collect`` looks for them
        return expectation

    def follow(self, work: Work) -> None:
        """Have what recoveries mark take effect in ``work`` from here on."""
        self._work = work

    async def agree(self, work: Work, wait_s: float, marks: Marks | None = None) -> Transcript:
        """Return once it is settled that all hold the last transcript; only then may anybody leave by it.

        Whoever has everyone's AGREE cannot know who else has, and calls a recovery, which settles for all that the
        attempt is over: from one attempt to the next leads nothing but a settlement (decision record 0021).
        ``marks`` are the marked pairs that follow from it, or by which somebody leaves. Elsewhere AGREE names none: a
        recovery between two phases may mark some before they say it, and some after.

        Raises:
            NewAttempt: a recovery decided that somebody leaves for another reason.
        """
        said = Agree(compute_marks_digest(marks or Marks()))
        expectation = self._begin(work, Phase.AGREE, said, 0, lambda message: message.payload == said)
        while True:
            transcript = await self._collect(work, expectation, wait_s)
            if self._broadcast.place.is_over:
                work.chain = transcript.digest
                return transcript
            self._recovery.end_attempt()
            await self._take_up_decision(work)

    def _move_to(self, expectation: Expectation) -> None:
        place = self._broadcast.place
        if place.current is not None and place.current.stage != expectation.stage:
            place.last = place.current
            self._reconciled.clear()
            self._overtaken = math.inf
        place.current, place.overdue = expectation, False

    async def _collect(self, work: Work, expectation: Expectation, wait_s: float) -> Transcript:
        patience = self._patience(wait_s)
        stalled = self._stalls.total_s
        while True:
            if self._recovery.is_pending:
                await self._take_up_decision(work)
                patience, self._broadcast.place.overdue = self._patience(wait_s), False
            elif transcript := self._broadcast.complete(expectation):
                self._broadcast.place.finish_stage(trio.current_time(), self._delay_s)
                return transcript
            elif evidence := self._find_untold(expectation):
                self._tell(expectation, evidence)
            else:
                self._reconcile(expectation)
                patience.deadline += self._stalls.total_s - stalled
                stalled = self._stalls.total_s
                await self._wait(expectation, patience)

    def _find_untold(self, expectation: Expectation) -> tuple[Equivocation, ...]:
        """What is proven against members and was not told yet in the next recovery.

        A HALT over anything else would be empty, and there is only one in a recovery.
        """
        place = self._broadcast.place
        is_told = self._told_in == (place.attempt, place.serial)
        told = self._told if is_told else ()
        found = (item for item in self.board.equivocations() if item.culprit in expectation.roster.everyone)
        return tuple(item for item in found if item.culprit not in told)

    def _tell(self, expectation: Expectation, evidence: tuple[Equivocation, ...]) -> None:
        """Halt with the proofs; where our HALT is signed already, without them, the others get what they consist of."""
        place = self._broadcast.place
        if self._told_in != (place.attempt, place.serial):
            self._told_in, self._told = (place.attempt, place.serial), set()
        self._told.update(item.culprit for item in evidence)
        self._recovery.halt(expectation, (), evidence)
        if not self._recovery.is_pending:
            for message in (version for item in evidence for version in self.board.versions(item.first.slot)):
                self._broadcast.relay(message)

    def _patience(self, wait_s: float) -> Patience:
        return Patience(trio.current_time() + wait_s, self._delay_s)

    async def _wait(self, expectation: Expectation, patience: Patience) -> None:
        due = patience.next_pull if patience.pulls < 2 else patience.halt
        look = self._overtaken + IN_FLIGHT * self._delay_s
        is_overtaken = trio.current_time() < look < due
        with trio.move_on_at(look if is_overtaken else due) as scope:
            await self.board.changed()
        if not scope.cancelled_caught:
            return
        if is_overtaken:
            self._overtaken = -math.inf  # it has been long enough, whatever a clock says that is read again
            return
        self._broadcast.place.overdue = True
        if patience.pulls < 2:
            patience.pulls += 1
            for stage in (expectation.stage, *self._find_earlier_stages(expectation.stage)):
                self._spawn(self._broadcast.pull, stage, self._broadcast.others, 2 * self._delay_s)
        else:
            self._recovery.halt(expectation, self._broadcast.find_missing(expectation), ())
            patience.deadline, patience.pulls = trio.current_time() + self._delay_s, 0  # should nobody follow it

    def _reconcile(self, expectation: Expectation) -> None:
        """Compare what we hold with members who followed another transcript than we, or are in another stage.

        What members that are past this stage hold may be on its way to us as well, and is asked for a little later.
        """
        broadcast, now, past = self._broadcast, trio.current_time(), self._broadcast.find_past(expectation)
        if beside := (*broadcast.find_strayed(expectation), *broadcast.find_ahead(expectation)):
            stages = (expectation.stage, *self._find_earlier_stages(expectation.stage))
            for peer in beside:
                self._compare(peer, stages, is_past=peer in past)
        if past:
            self._overtaken = min(self._overtaken, now)
            for peer in past if now >= self._overtaken + IN_FLIGHT * self._delay_s else ():
                self._compare(peer, (expectation.stage,), is_past=True)

    def _compare(self, peer: PeerId, stages: tuple[Stage, ...], *, is_past: bool) -> None:
        """Ask a member for what it holds: once in a stage, and once more when it is past it, for then it holds all."""
        if (peer, is_past) not in self._reconciled:
            self._reconciled.add((peer, is_past))
            for stage in stages:
                self._spawn(self._broadcast.pull, stage, (peer,), 2 * self._delay_s)

    def _find_earlier_stages(self, stage: Stage) -> tuple[Stage, ...]:
        last = self._broadcast.place.last
        commits = [Stage(stage.round, attempt, Phase.COMMIT) for attempt in range(stage.attempt + 1)]
        held = [item for item in commits if self.board.of(item) and item != stage]
        return tuple({*held, *([last.stage] if last else [])})

    async def _take_up_decision(self, work: Work) -> None:
        decision, reason = await self._recovery.settled()
        self._taken_up += 1
        if self._broadcast.me in decision.leaving:
            raise NewAttempt(work.round, reason, banned=decision.banned, removed=_get_removed(decision))
        if decision.changes_roster:
            self._postponed = decision, reason
            self._follow_postponed(work)
        self._waiting_out.cancel()

    def _hear(self, decision: Decision) -> None:
        """Mark at once what a recovery has settled: the next one of the attempt waits for nobody, and goes by that."""
        assert self._work is not None
        self._work.mark(decision.marked, decision.resume_round)
        self._work.share(decision.marked | decision.shown)
        self._share_marks(self._work)

    def _share_marks(self, work: Work) -> None:
        """Let views show all pairs that we know, and HALTs count by those that all have in common.

        Slices and parts go by those in force, which change for all members at the same place (see ``Work.mark``).
        What a gather marks is news to a member that is a phase behind, or was not there: no HALT counts by that before
        a settlement has shown it to all, or else some would enter a recovery, and the others not.
        """
        recovery = self._recovery
        recovery.marks = work.next_marks.with_pairs(recovery.marks.pairs | work.awaited_pairs).within(work.roster)
        self._broadcast.place.common = work.common

    def _follow_postponed(self, work: Work) -> None:
        """Act on a decision once we are in its round; whoever was a round behind finishes its own first."""
        if self._postponed is None or self._postponed[0].resume_round > work.round:
            return
        (decision, reason), self._postponed = self._postponed, None
        raise NewAttempt(decision.resume_round, reason, banned=decision.banned, removed=_get_removed(decision))

    async def attend(self, work: Work, task: Callable[[], Awaitable[T]]) -> T:
        """Return what ``task`` comes to; it is given up where a recovery decides meanwhile that somebody leaves.

        The others are in the next attempt by then, and who is not there misses its recoveries. What runs in a thread
        runs on to its end, unheard.

        Raises:
            NewAttempt: that was decided.
        """
        results, scope = list[T](), trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    results.append(await task())
            except Exception:
                if not scope.cancel_called:  # else what it works on has changed under it
                    raise
            self.board.signal()

        self._follow_postponed(work)
        self._spawn(run)
        try:
            while not results:
                if self._recovery.has_decided:
                    await self._take_up_decision(work)
                else:
                    await self.board.changed()
        finally:
            scope.cancel()
        return results[0]

    async def wait_for(self, work: Work, is_done: Callable[[], bool], wait_s: float) -> bool:
        """Wait for private data, at most ``wait_s`` seconds; return whether it came.

        Raises:
            NewAttempt: a recovery decided meanwhile that somebody leaves.
        """
        with trio.move_on_after(wait_s):
            while not is_done():
                if self._recovery.is_pending:
                    await self._take_up_decision(work)
                else:
                    await self.board.changed()
        return is_done()

    async def wait_out(self, work: Work, is_done: Callable[[], bool], wait: Callable[[], Awaitable[None]]) -> None:
        """Do all of ``wait``, for private data, and begin anew with every recovery that ends, until the data is here.

        While a recovery runs no phase completes: others may not have known yet that they owe us something, and nobody
        is blamed for what it could not send in that time. As it ends, everybody else begins to wait anew as well.

        Raises:
            NewAttempt: a recovery decided meanwhile that somebody leaves.
        """
        seen = None
        while not is_done() and seen != self._taken_up:
            seen = self._taken_up
            with trio.CancelScope() as self._waiting_out:
                await wait()
            if self._recovery.is_pending and not is_done():
                await self._take_up_decision(work)


def _get_removed(decision: Decision) -> tuple[PeerId, ...]:
    return (*decision.removed, *decision.overmarked)


def compute_opening_chain(work: Work) -> bytes:
    """Return what an attempt's first phase follows: the commitments, and why earlier attempts ended."""
    assert work.commits is not None
    return digest(Context.TRANSCRIPT, work.reason, work.commits.digest)
