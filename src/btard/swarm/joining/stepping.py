"""
How a candidate comes from one state to a later one: by the aggregates of the rounds between.

No seal names an aggregate, and what leads to the sealed x may lead to another memory of the optimizer, where float32
swallows the difference. So one member gives an aggregate, and more than f must name it alike: one of them is honest.
"""

import math
from collections.abc import Callable, Sequence

import structlog
import torch
import trio

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net import Hub
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.frames import Kind, UpdateHead, UpdateRequest
from btard.swarm.joining.transfer_frames import MAX_ANSWER, Claim, Claims, RoundsQuestion
from btard.swarm.membership import Membership
from btard.swarm.restoring import Vectors
from btard.swarm.state import as_bytes, compute_state_root, is_named_by
from btard.swarm.updates import Update
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

AHEAD = 4
"""Aggregates asked for at once by whoever is behind: a far member's answers come one on another's heels."""
HASHED_PER_S = 1e8
"""Bytes a second that a member hashes at least, before it can name what it has."""
ASKED_AGAIN = 8
"""Times that a member is asked once more for names that it does not know yet, within 4Δ: it may be a phase behind."""


class Ballot:
    """What enough members name the aggregates of some rounds alike."""

    def __init__(self, rounds: range, needed: int) -> None:
        self._rounds, self._needed = rounds, needed
        self._votes: dict[int, dict[PeerId, Claim]] = {number: {} for number in rounds}
        self._agreed: dict[int, Claim] = {}
        self._is_over = trio.Event()

    def count(self, peer: PeerId, claims: Sequence[Claim]) -> bool:
        """Take what a member says now; return whether it names all rounds."""
        named = [(number, claim) for number, claim in zip(self._rounds, claims, strict=False) if len(claim.root) == 32]
        for number, claim in named:
            votes = self._votes[number]
            votes[peer] = claim
            if sum(vote == claim for vote in votes.values()) >= self._needed:
                self._agreed[number] = claim
        if len(self._agreed) == len(self._rounds):
            self.close()
        return len(named) == len(self._rounds)

    def close(self) -> None:
        """Wait for no more votes."""
        self._is_over.set()

    @property
    def has_failed(self) -> bool:
        """Whether it is certain that not enough name all of them alike."""
        return self._is_over.is_set() and len(self._agreed) < len(self._rounds)

    async def find(self, rounds: range) -> Sequence[Claim] | None:
        """Return what enough name alike of some rounds, once that is certain of all; None if it never will be."""
        await self._is_over.wait()
        found = [self._agreed[number] for number in rounds if number in self._agreed]
        return found if len(found) == len(rounds) else None


class Steps:
    """Steps of one candidate, and what it remembers of those who gave it aggregates."""

    def __init__(self, member: Membership, hub: Hub, find_roster: Callable[[], Roster]) -> None:
        self._config, self._compute, self._workload = member.config, member.compute, member.workload
        self._me, self._hub, self._find_roster = member.identity.peer_id, hub, find_roster
        self._liars, self._silent = set[PeerId](), set[PeerId]()

    async def take(self, seal: Seal, finished: int, vectors: Vectors) -> Vectors | None:
        """Return the state after the round of ``seal``, from that after round ``finished``.

        Nothing is returned where nobody gives the aggregates any more, where no more than f name them alike, and
        where they lead to another state: then the one that we began with was not the run's, and nobody is blamed.
        """
        rounds, roster = range(finished + 1, seal.round + 1), self._find_roster()
        ballot = Ballot(rounds, roster.tolerated(self._config.byzantine_bound) + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._poll, ballot, rounds, roster)
            after = await self._step_by_any(self._order_sources(seal, roster), vectors, rounds, ballot)
            nursery.cancel_scope.cancel()
        if after is None:
            return None
        if await self._compute.run(lambda: is_named_by(seal, *after, self._config.chunk_size)):
            return after
        log.warning("what members name alike does not lead from our state to the sealed one", round=seal.round)
        return None

    # --- names ---

    async def _poll(self, ballot: Ballot, rounds: range, roster: Roster) -> None:
        """Ask all members at the same time what they name the aggregates; whoever cannot say yet is asked again."""
        hashing_s = len(rounds) * 4 * self._config.elements / HASHED_PER_S
        with trio.move_on_after(6 * self._config.delay_s + hashing_s):
            async with trio.open_nursery() as nursery:
                for peer in roster.without([self._me]).members:
                    nursery.start_soon(self._ask_for_names, ballot, peer, rounds)
        ballot.close()

    async def _ask_for_names(self, ballot: Ballot, peer: PeerId, rounds: range) -> None:
        question = encode(RoundsQuestion(rounds.start, rounds.stop - 1))
        for _ in range(1 + ASKED_AGAIN):
            try:
                answer = await self._hub.request(peer, Kind.NAMES, question, timeout_s=math.inf)
                if ballot.count(peer, decode(answer.head, Claims, limit=MAX_ANSWER).claims):
                    return
            except (NetworkError, RemoteProtocolError) as error:
                log.debug("no names of aggregates", peer=short(peer), reason=str(error))
            await trio.sleep(4 * self._config.delay_s / ASKED_AGAIN)

    # --- aggregates ---

    def _order_sources(self, seal: Seal, roster: Roster) -> Sequence[PeerId]:
        """All members, beginning where chance has it; those later that gave none once, last who gave another one."""
        members = roster.members
        first = int.from_bytes(seal.q[:4], "little") % len(members) + int.from_bytes(self._me[:4], "little")
        drawn = [members[(first + index) % len(members)] for index in range(len(members))]
        return sorted(drawn, key=lambda peer: (peer in self._liars, peer in self._silent))

    async def _step_by_any(
        self, sources: Sequence[PeerId], vectors: Vectors, rounds: range, ballot: Ballot
    ) -> Vectors | None:
        """Return the state after some rounds by the aggregates of the first member that gives those agreed on."""
        for peer in sources:
            if not self._hub.is_connected(peer):
                continue
            after = await self._step_by(peer, vectors, rounds, ballot)
            if after is not None or ballot.has_failed:
                return after
        return None

    async def _step_by(self, peer: PeerId, vectors: Vectors, rounds: range, ballot: Ballot) -> Vectors | None:
        """Return the state after these rounds by the aggregates that one member gives, if it gives all of them."""
        for first in range(rounds.start, rounds.stop, AHEAD):
            several = range(first, min(first + AHEAD, rounds.stop))
            updates = await self._ask_for_updates(peer, several)
            if updates is None:
                self._silent.add(peer)
                return None
            claims = await ballot.find(several)
            if claims is None:
                log.warning("no more than f members name an aggregate alike", first=first, last=several.stop - 1)
                return None
            before = vectors
            after = await self._compute.run(lambda: self._apply(before, updates, claims))  # noqa: B023
            if after is None:
                self._liars.add(peer)
                log.warning("a member's aggregate is not the one that others name", peer=short(peer), first=first)
                return None
            vectors = after
        return vectors

    def _apply(self, vectors: Vectors, updates: Sequence[Update], claims: Sequence[Claim]) -> Vectors | None:
        """Return the state after some rounds; None if an aggregate is not the one that was named."""
        for update, claim in zip(updates, claims, strict=True):
            root = compute_state_root(update.aggregate, self._config.chunk_size)
            if Claim(update.is_applied, root) != claim:
                return None
            if update.is_applied:
                parameters, optimizer = vectors
                vectors = self._workload.step(parameters, update.aggregate, optimizer)
        return vectors

    async def _ask_for_updates(self, peer: PeerId, rounds: range) -> Sequence[Update] | None:
        """Return the aggregates of consecutive rounds, asked for at once; None if one of them is not given."""
        updates: dict[int, Update | None] = {}

        async def ask(number: int) -> None:
            updates[number] = await self._ask_for_update(peer, number)

        async with trio.open_nursery() as nursery:
            for number in rounds:
                nursery.start_soon(ask, number)
        found = [update for number in rounds if (update := updates[number]) is not None]
        return found if len(found) == len(rounds) else None

    async def _ask_for_update(self, peer: PeerId, number: int) -> Update | None:
        values = torch.empty(self._config.elements, dtype=torch.float32)
        buffer = as_bytes(values)
        timeout_s = 2 * self._config.delay_s + AHEAD * len(buffer) / self._config.min_bandwidth
        try:
            answer = await self._hub.request(
                peer,
                Kind.UPDATE,
                encode(UpdateRequest(number)),
                timeout_s=timeout_s,
                sink=lambda _, size: buffer if size == len(buffer) else None,
            )
            return Update(values, decode(answer.head, UpdateHead).is_applied) if answer.payload is not None else None
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("no aggregate", peer=short(peer), round=number, reason=str(error))
            return None
