"""
Where newcomers hand in join tickets: a bounded queue before one verifier (attacks C13, B8e).

A false ticket costs its sender nothing and us one evaluation of Argon2id, so these bounds hold whoever sends:

1. What can be refused for a few microseconds is refused before anything waits.
2. One evaluation at a time, `TOTAL_PER_SECOND` of them on average: 4% of a core at the default memory.
3. Of an address block one ticket waits at a time, and `BLOCK_PER_SECOND` are evaluated; `MAX_WAITING` wait in all.
4. `MAX_FALSE` false tickets of one key, and it is not listened to for `SHUT_SECONDS`; its link should be cut.

Honest newcomers give none. Refused for want of room, they come again, or go to another member.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from functools import partial
from typing import NamedTuple, TypeVar

import trio

from btard.dht.limits import TokenBucket
from btard.identity import Flaw, JoinTicket, PeerId, Puzzle, TicketTerms
from btard.identity.work import find_cheap_flaw, pose_puzzle
from btard.net import find_block
from btard.swarm.compute import Compute

MAX_WAITING = 16
TOTAL_PER_SECOND, TOTAL_BURST = 4.0, 16.0
BLOCK_PER_SECOND, BLOCK_BURST = 0.25, 8.0
MAX_FALSE = 3
SHUT_SECONDS = 600.0
MAX_TRACKED = 4096
"""Blocks and keys remembered at once; those seen longest ago are forgotten first."""
MAX_KNOWN = 1024
"""Tickets whose evaluation is remembered, so that presenting one again costs nothing."""
MAX_TICKET_BYTES = 64

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Reply(IntEnum):
    """What comes of a ticket; a number on the wire, words for the newcomer's user (``explain``)."""

    TAKEN = 0
    FUTURE = 1
    STALE = 2
    UNKNOWN = 3
    IDENTITY = 4
    WORK = 5
    FOREIGN = 6
    OFTEN = 7
    BUSY = 8
    SHUT = 9
    CLOSED = 10


FALSE = frozenset({Reply.IDENTITY, Reply.WORK, Reply.FOREIGN})
"""Replies that no honest newcomer gets: the others can be nobody's fault, like a round that we have not sealed yet."""

_WORDS = {
    Reply.TAKEN: "the ticket is good; places are drawn among all that are",
    Reply.FOREIGN: "it is another key's",
    Reply.OFTEN: "too many tickets come from your network: wait a little",
    Reply.BUSY: "too many tickets are waiting: wait a little, or ask another member",
    Reply.CLOSED: "this run admits nobody after its genesis",
    Reply.SHUT: f"{MAX_FALSE} false tickets came from your key: nobody listens for {SHUT_SECONDS / 60:.0f} minutes",
}


def explain(reply: Reply) -> str:
    """Return a reply in words."""
    return _WORDS.get(reply) or str(Flaw[reply.name])


class Outlook(NamedTuple):
    """What a ticket on one round is judged by."""

    newest: int
    """The last sealed round."""
    q: bytes | None
    """The draw of the ticket's round; None if it is not known."""
    bits: int
    """The difficulty of the epoch that the ticket's round belongs to."""


class TicketDesk:
    """Judges tickets for one member.

    ``look`` tells the outlook for the round that a ticket names. ``compute`` should not be the one of the round: behind
    a gradient a ticket would wait as long as that takes.
    """

    def __init__(self, terms: TicketTerms, look: Callable[[int], Outlook], compute: Compute) -> None:
        self._terms, self._look, self._compute = terms, look, compute
        self._turn = trio.StrictFIFOLock()
        self._waiting: set[str] = set()
        self._total = TokenBucket(TOTAL_PER_SECOND, TOTAL_BURST, trio.current_time())
        self._blocks: OrderedDict[str, TokenBucket] = OrderedDict()
        self._false: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[tuple[Puzzle, int], bool] = OrderedDict()

    async def present(self, peer: PeerId, ticket: JoinTicket, host: str) -> Reply:
        """Return what comes of a ticket that ``peer`` presents on a link from ``host``; then cut it if ``is_shut``."""
        await trio.lowlevel.checkpoint()
        reply = await self._judge(peer, ticket, find_block(host))
        if reply in FALSE:
            self._note_false(peer)
        return reply

    def is_shut(self, peer: PeerId) -> bool:
        """Return whether ``peer`` has given so many false tickets that its link should be cut."""
        count, last = self._false.get(peer, (0, 0.0))
        return count >= MAX_FALSE and trio.current_time() < last + SHUT_SECONDS

    async def _judge(self, peer: PeerId, ticket: JoinTicket, block: str) -> Reply:
        if self.is_shut(peer):
            return Reply.SHUT
        if ticket.peer != peer:
            return Reply.FOREIGN
        puzzle = self._pose(ticket)
        if isinstance(puzzle, Flaw):
            return Reply[puzzle.name]
        is_solved = self._known.get((puzzle, ticket.nonce))
        if is_solved is None:
            refusal = self._refuse(block)
            if refusal is not None:
                return refusal
            is_solved = await self._wait_and_see(puzzle, ticket.nonce, block)
        return Reply.TAKEN if is_solved else Reply.WORK

    def _pose(self, ticket: JoinTicket) -> Puzzle | Flaw:
        """Return what ``ticket`` claims to solve, or why that is not worth an evaluation."""
        outlook = self._look(ticket.round)
        flaw = find_cheap_flaw(ticket, self._terms, outlook.newest, outlook.q)
        if flaw or outlook.q is None:
            return flaw or Flaw.UNKNOWN
        return pose_puzzle(ticket, self._terms, outlook.q, outlook.bits)

    def _refuse(self, block: str) -> Reply | None:
        """Return why a ticket from ``block`` may not wait for its evaluation; if it may, it is counted."""
        if block in self._waiting:
            return Reply.OFTEN
        if len(self._waiting) >= MAX_WAITING:
            return Reply.BUSY
        now = trio.current_time()
        bucket = self._blocks.get(block) or TokenBucket(BLOCK_PER_SECOND, BLOCK_BURST, now)
        _remember(self._blocks, block, bucket, MAX_TRACKED)
        if not bucket.take(now):
            return Reply.OFTEN
        return None if self._total.take(now) else Reply.BUSY

    async def _wait_and_see(self, puzzle: Puzzle, nonce: int, block: str) -> bool:
        self._waiting.add(block)
        try:
            async with self._turn:
                return await self._is_solved(puzzle, nonce)
        finally:
            self._waiting.discard(block)

    async def _is_solved(self, puzzle: Puzzle, nonce: int) -> bool:
        is_solved = self._known.get((puzzle, nonce))
        if is_solved is None:
            is_solved = await self._compute.run(partial(puzzle.is_solved_by, nonce))
            _remember(self._known, (puzzle, nonce), is_solved, MAX_KNOWN)
        return is_solved

    def _note_false(self, peer: PeerId) -> None:
        now = trio.current_time()
        count, last = self._false.get(peer, (0, now))
        count = count if now < last + SHUT_SECONDS else 0
        _remember(self._false, peer, (count + 1, now), MAX_TRACKED)


def _remember(known: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    """Let ``key`` be the newest of at most ``limit`` keys."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > limit:
        known.popitem(last=False)
