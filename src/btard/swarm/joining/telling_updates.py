"""
A member gives candidates the aggregates of past rounds, and names them: no seal does, so more than f must name one.

Only candidates and newcomers are answered, a bounded number of times while a round lasts. An aggregate is hashed
once, in a thread beside the round, and not before somebody asks. A guest that reads slowly keeps one aggregate in
memory, the last that it was given from there; the others are files, mapped.
"""

from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

import trio

from btard.identity import PeerId
from btard.net import Hub, Loan, hold
from btard.rules.config import RunConfig
from btard.swarm.compute import Compute
from btard.swarm.frames import Kind, UpdateHead, UpdateRequest
from btard.swarm.joining.telling_state import hash_vector
from btard.swarm.joining.transfer_frames import MAX_CLAIMS, MAX_QUESTION, Claim, Claims, RoundsQuestion
from btard.swarm.lending import compute_send_patience
from btard.swarm.state import as_bytes
from btard.swarm.updates import Update, Updates
from btard.wire import decode, encode

MAX_NAMINGS = 64
"""Questions for names that one candidate may ask while a round lasts: who is a phase behind is asked again."""


class UpdateTeller:
    """What one member tells its guests of aggregates: the newest, from memory, and those that are on disk."""

    def __init__(
        self, config: RunConfig, hub: Hub, stored: Updates, aside: Compute, is_guest: Callable[[PeerId], bool]
    ) -> None:
        self._config, self._stored, self._aside, self._is_guest = config, stored, aside, is_guest
        self._newest: tuple[int, Update] | None = None
        self._given, self._named = Counter[PeerId](), Counter[PeerId]()
        self._reading = WeakValueDictionary[PeerId, trio.CancelScope]()
        self._most_given = 3 * config.state_interval + 1  # more are not on disk
        self._claims: dict[int, Claim] = {}
        self._hashing = trio.Lock()
        hub.serve[Kind.UPDATE] = self._serve_update
        hub.serve[Kind.NAMES] = self._serve_names

    def begin_round(self, number: int) -> None:
        """Answer everybody again, and forget what we knew of the round before: it may have been run again."""
        self._given.clear()
        self._named.clear()
        self._newest, oldest = None, number - 1 - self._most_given
        self._claims = {known: claim for known, claim in self._claims.items() if oldest <= known < number - 1}

    def finish_round(self, number: int, update: Update) -> None:
        """Have the aggregate of the round before the one in progress ready."""
        self._newest = number, update

    async def _serve_update(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        """Answer a candidate with the aggregate of a round: the newest, or one that is on disk.

        While a round lasts it is given as many as may be on disk: each once.
        """
        await trio.lowlevel.checkpoint()
        request: UpdateRequest = decode(body, UpdateRequest)
        if not self._is_guest(peer) or self._given[peer] >= self._most_given:
            return b"", None
        self._given[peer] += 1
        held = self._find(request.round)
        if held is None:
            return b"", None
        return encode(UpdateHead(held[0])), Loan(held[1], self._open_scope(peer, request.round))

    def _open_scope(self, peer: PeerId, number: int) -> trio.CancelScope:
        """Return how long a guest may read an aggregate; of those in memory it reads the last only."""
        scope = trio.move_on_after(compute_send_patience(self._config))
        if self._newest is not None and self._newest[0] == number:
            if (before := self._reading.get(peer)) is not None:
                before.cancel()
            self._reading[peer] = scope
        return scope

    def _find(self, number: int) -> tuple[bool, memoryview] | None:
        """Whether x moved by the aggregate of a round, and its bytes, if we hold it."""
        if self._newest is not None and self._newest[0] == number:
            return self._newest[1].is_applied, as_bytes(self._newest[1].aggregate)
        is_applied, data = self._stored.is_applied(number), self._stored.map(number)
        return None if is_applied is None or data is None else (is_applied, data)

    async def _serve_names(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        """Name the aggregates of some rounds, those that we do not hold without a root."""
        await trio.lowlevel.checkpoint()
        question: RoundsQuestion = decode(body, RoundsQuestion, limit=MAX_QUESTION)
        if not self._is_guest(peer) or self._named[peer] >= MAX_NAMINGS:
            return b"", None
        self._named[peer] += 1
        rounds = range(question.first, min(question.last + 1, question.first + min(self._most_given, MAX_CLAIMS)))
        async with hold(self._hashing):
            return encode(Claims(tuple([await self._name(number) for number in rounds]))), None

    async def _name(self, number: int) -> Claim:
        if number not in self._claims:
            newest, held = self._newest, self._find(number)
            if held is None:
                return Claim(False, b"")
            root = await self._aside.run(lambda: hash_vector(held[1], 4 * self._config.chunk_size).root)
            if newest is not self._newest:  # a round ended meanwhile, perhaps this one, for the second time
                return Claim(held[0], root)
            self._claims[number] = Claim(held[0], root)
        return self._claims[number]
