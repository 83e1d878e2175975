"""A member tells newcomers the line of seals: the fewest steps that its ledger can vouch for."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import trio

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.rules.succession import find_vouchers, roster_of
from btard.swarm.frames import Kind, SignedTuple
from btard.swarm.joining.lineage import FROM_GENESIS, MAX_PAGE, LineAnswer, LineQuestion
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, decode, encode, encode_seal

SEALS_PER_TURN = 128
"""Seals read into the index before other tasks get their turn: some milliseconds."""
MAX_QUESTION = 256
ANSWERS_KEPT, MAX_KEPT = 32, 64 * 1024
"""Answers that are kept until more is signed, and the largest of them, in bytes."""


class SealIndex:
    """Which seals of the ledger are signed, by round and by digest; it grows as the ledger does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._growing = ledger, trio.Lock()
        self.rounds: list[int] = []
        self._by_digest: dict[bytes, int] = {}
        self.signings = -1

    async def grow(self) -> None:
        """Take in what was signed since the last time."""
        if self.signings == self._ledger.signings:
            await trio.lowlevel.checkpoint()
            return
        async with self._growing:
            signings = self._ledger.signings
            while True:
                first = self.rounds[-1] + 1 if self.rounds else 0
                seals = list(self._ledger.signed_seals_from(first, SEALS_PER_TURN))
                self.rounds += [seal.round for seal in seals]
                self._by_digest.update((compute_seal_digest(seal), seal.round) for seal in seals)
                await trio.lowlevel.checkpoint()
                if len(seals) < SEALS_PER_TURN:
                    self.signings = signings
                    return

    def find(self, digest: bytes) -> int | None:
        """Return the round whose seal has this digest."""
        return self._by_digest.get(digest)

    def read(self, number: int) -> Seal:
        """Return a signed seal by its round."""
        return next(self._ledger.signed_seals_from(number, 1))

    def step(self, base: Seal, last: int) -> Seal | None:
        """Return the last seal up to round ``last`` that ``base``'s roster vouches for; None if there is none.

        Whoever left is gone, so of a roster ever fewer vouch, and halving finds the last one.
        """
        candidates = self.rounds[bisect_right(self.rounds, base.round) : bisect_right(self.rounds, last)]
        roster = roster_of(base)
        if candidates and self._is_vouched(base, roster, candidates[-1]):
            return self.read(candidates[-1])
        found = bisect_left(candidates, True, key=lambda number: not self._is_vouched(base, roster, number))
        return self.read(candidates[found - 1]) if found else None

    def _is_vouched(self, base: Seal, roster: Roster, number: int) -> bool:
        signers = frozenset(item.signer for item in self._ledger.signatures(number))
        return len(find_vouchers(base, self.read(number), signers)) >= roster.majority


class LineTeller:
    """Answers questions for the line, from one ledger; strangers wait their turn."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._turnstile, self._ledger, self._index = Turnstile(hub), ledger, SealIndex(ledger)
        self._said: dict[LineQuestion, bytes] = {}
        self._said_of = -1
        hub.serve[Kind.LINEAGE] = self._serve

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: LineQuestion = decode(body, LineQuestion, limit=MAX_QUESTION)
        await self._turnstile.enter(peer)
        said = self._said.get(question) if self._said_of == self._ledger.signings else None
        if said is None:
            await self._index.grow()
            signings = self._index.signings
            said = encode(await self._answer(question))
            self._remember(question, signings, said)
        return said, None

    def _remember(self, question: LineQuestion, signings: int, said: bytes) -> None:
        """Keep an answer for the others who wait: they ask the same until more is signed."""
        if self._said_of != signings or len(self._said) >= ANSWERS_KEPT:
            self._said_of, self._said = signings, {}
        if len(said) <= MAX_KEPT:
            self._said[question] = said

    async def _answer(self, question: LineQuestion) -> LineAnswer:
        newest = self._index.rounds[-1] if self._index.rounds else 0
        through = [self._index.find(digest) for digest in question.through]
        if None in through or not self._index.rounds:
            return LineAnswer((), newest, is_known=False)
        wanted = sorted({number for number in through if number is not None and number > question.after} | {newest})
        page = await self._collect(question.after, wanted)
        return LineAnswer(page, newest, is_known=True)

    async def _collect(self, after: int, wanted: Sequence[int]) -> tuple[SignedTuple, ...]:
        """One page of the line after a round, through the wanted rounds."""
        page: list[SignedTuple] = []
        size = 0
        for seal in self._walk(after, wanted):
            item = SignedTuple(encode_seal(seal), self._ledger.signatures(seal.round))
            page.append(item)
            size += len(item.seal) + 128 * len(item.signatures)
            if size >= MAX_PAGE:
                break
            await trio.lowlevel.checkpoint()
        return tuple(page)

    def _walk(self, after: int, wanted: Sequence[int]) -> Iterator[Seal]:
        rounds = self._index.rounds
        if after == FROM_GENESIS and rounds[0] == 0:
            after = 0
            yield self._index.read(0)
        place = bisect_left(rounds, after)
        if place == len(rounds) or rounds[place] != after:
            return
        base = self._index.read(after)
        for number in wanted:
            while base.round < number:
                step = self._index.step(base, number)
                if step is None:
                    return
                base = step
                yield base
