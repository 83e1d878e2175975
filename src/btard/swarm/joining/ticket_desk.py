"""
Where newcomers hand in join tickets, and how few of them a member evaluates (attacks C13, B8e).

A false ticket costs its sender nothing and us one evaluation of Argon2id; and most good ones never get a place. So a
ticket that passes a glance is kept as it is, and evaluated when a draw puts it among the first. These bounds hold
whoever sends:

1. What can be refused for a few microseconds is refused before anything is kept.
2. `MAX_KEPT` are kept, one of a key. Where that is too few, whichever address block has most gives way.
3. One evaluation at a time, `TOTAL_PER_SECOND` of them on average: 4% of a core at the default memory;
   `BLOCK_PER_SECOND` for tickets of one block: those beyond are passed over.
4. `MAX_FALSE` false tickets of one key, and its link is cut, and it is not listened to for `SHUT_SECONDS`.
5. `MAX_VAIN` showings in vain, of whatever kind, and one more every `VAIN_SECONDS`: at the next the link is cut.

Honest newcomers give no false ticket, and show a ticket once. Who is refused comes again, soon at first, a dozen times
within the first minute at most, then once a minute (``candidacy.py``).
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import NamedTuple, TypeVar

import trio

from btard.dht.limits import TokenBucket
from btard.identity import Flaw, JoinTicket, PeerId, Puzzle, TicketTerms
from btard.identity.work import find_cheap_flaw, pose_puzzle
from btard.net import Pace, find_block
from btard.swarm.compute import Compute

MAX_KEPT = 1024
TOTAL_PER_SECOND, TOTAL_BURST = 4.0, 16.0
BLOCK_PER_SECOND, BLOCK_BURST = 0.25, 8.0
MAX_FALSE = 3
SHUT_SECONDS = 600.0
MAX_VAIN, VAIN_SECONDS = 16, 30.0
MAX_TRACKED = 4096
"""Blocks, keys and false tickets remembered at once; those seen longest ago are forgotten first."""
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
    BUSY = 7
    SHUT = 8
    CLOSED = 9


FALSE = frozenset({Reply.IDENTITY, Reply.WORK, Reply.FOREIGN})
"""Replies that no honest newcomer gets: the others can be nobody's fault, like a round that we have not sealed yet."""

_WORDS = {
    Reply.TAKEN: "the ticket waits; places are drawn among all that do",
    Reply.FOREIGN: "it is another key's",
    Reply.BUSY: "too many tickets are waiting: wait a little, or ask another member",
    Reply.CLOSED: "this run admits nobody, or nobody any more",
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


@dataclass(frozen=True)
class Kept:
    """A ticket that waits for its lot, what it claims to solve, and the address block that it came from."""

    ticket: JoinTicket
    puzzle: Puzzle
    block: str


class TicketDesk:
    """Keeps and judges tickets for one member.

    ``look`` tells the outlook for a ticket's round, or why its key gets no place by it. ``compute`` should not be the
    one of the round: behind a gradient a ticket would wait as long as that takes. ``cut`` ends a key's link, with the
    reason.
    """

    def __init__(
        self,
        terms: TicketTerms,
        look: Callable[[JoinTicket], Outlook | Reply],
        compute: Compute,
        cut: Callable[[PeerId, str], None],
    ) -> None:
        self._terms, self._look, self._compute, self._cut = terms, look, compute, cut
        self._vain = Pace(1 / VAIN_SECONDS, MAX_VAIN)
        self._turn = trio.Lock()
        self._kept: dict[PeerId, Kept] = {}
        self._good: set[PeerId] = set()
        self._total = TokenBucket(TOTAL_PER_SECOND, TOTAL_BURST, trio.current_time())
        self._blocks: OrderedDict[str, TokenBucket] = OrderedDict()
        self._false: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        self._refuted: OrderedDict[JoinTicket, None] = OrderedDict()

    def present(self, peer: PeerId, ticket: JoinTicket, host: str) -> Reply:
        """Return what comes of a ticket that ``peer`` presents on a link from ``host``.

        All is in vain but the first ticket of a key that has none waiting: an honest newcomer's next one comes when the
        last is too old.
        """
        is_first, reply = peer not in self._kept, self._judge(peer, ticket, host)
        if reply in FALSE:
            self._note_false(peer)
        elif reply is Reply.SHUT:
            self._cut(peer, "it has shown too many false tickets")
        elif not (is_first and reply is Reply.TAKEN):
            self._note_vain(peer)
        return reply

    def forgive(self, peer: PeerId) -> None:
        """Forget what a key showed in vain, for it has a place by now."""
        self._vain.forget(peer)

    def _is_shut(self, peer: PeerId) -> bool:
        count, last = self._false.get(peer, (0, 0.0))
        return count >= MAX_FALSE and trio.current_time() < last + SHUT_SECONDS

    def _judge(self, peer: PeerId, ticket: JoinTicket, host: str) -> Reply:
        if self._is_shut(peer):
            return Reply.SHUT
        if ticket.peer != peer:
            return Reply.FOREIGN
        if ticket in self._refuted:
            return Reply.WORK
        if (known := self._kept.get(peer)) and known.ticket == ticket:
            return Reply.TAKEN
        puzzle = self._pose(ticket)
        return puzzle if isinstance(puzzle, Reply) else self._keep(Kept(ticket, puzzle, find_block(host)))

    def _pose(self, ticket: JoinTicket) -> Puzzle | Reply:
        """Return what ``ticket`` claims to solve, or why that is not worth an evaluation."""
        outlook = self._look(ticket)
        if isinstance(outlook, Reply):
            return outlook
        flaw = find_cheap_flaw(ticket, self._terms, outlook.newest, outlook.q)
        if flaw or outlook.q is None:
            return Reply[(flaw or Flaw.UNKNOWN).name]
        return pose_puzzle(ticket, self._terms, outlook.q, outlook.bits)

    def _keep(self, kept: Kept) -> Reply:
        """Take a ticket in place of its key's last one, or of one from the block that most wait from."""
        peer = PeerId(kept.ticket.peer)
        if peer not in self._kept and len(self._kept) >= MAX_KEPT and not self._make_room(kept.block):
            return Reply.BUSY
        self._drop(peer)
        self._kept[peer] = kept
        return Reply.TAKEN

    def _make_room(self, block: str) -> bool:
        """Let the newest ticket not known to be good give way, of the block with most, unless that is ``block``."""
        waiting = [(peer, item.block) for peer, item in self._kept.items() if peer not in self._good]
        counts = Counter(other for _, other in waiting)
        busiest, most = max(counts.items(), key=lambda item: item[1], default=(block, 0))
        if most <= counts[block] + 1:
            return False
        self._drop(next(peer for peer, other in reversed(waiting) if other == busiest))
        return True

    def _drop(self, peer: PeerId) -> None:
        self._kept.pop(peer, None)
        self._good.discard(peer)

    def forget(self, is_void: Callable[[JoinTicket], bool]) -> None:
        """Drop the tickets that can get no place any more."""
        for peer in [peer for peer, item in self._kept.items() if is_void(item.ticket)]:
            self._drop(peer)

    def find_good(self) -> Sequence[JoinTicket]:
        """Return the tickets that were evaluated, and are what they claim to be."""
        return [self._kept[peer].ticket for peer in sorted(self._good)]

    @property
    def has_tickets(self) -> bool:
        """Whether any ticket is kept."""
        return bool(self._kept)

    async def evaluate_first(self, rank: Callable[[JoinTicket], bytes], count: int) -> None:
        """Have those evaluated that a draw puts first, until the first ``count`` of what is left are good.

        Does nothing while it is at work still for another draw.
        """
        if self._turn.locked():
            return
        async with self._turn:
            good = 0
            for peer, item in sorted(self._kept.items(), key=lambda entry: rank(entry[1].ticket)):
                good += await self._is_good(peer, item)
                if good == count:
                    return

    async def _is_good(self, peer: PeerId, item: Kept) -> bool:
        """Return whether a ticket is known to be good; now is the time to find out, if there is a token for it."""
        if peer in self._good or not self._may_evaluate(item.block):
            return peer in self._good
        is_solved = await self._compute.run(partial(item.puzzle.is_solved_by, item.ticket.nonce))
        is_kept = self._kept.get(peer) is item
        if not is_solved:
            _remember(self._refuted, item.ticket, None, MAX_TRACKED)
            self._note_false(peer)
        if is_kept and is_solved:
            self._good.add(peer)
        elif is_kept:
            self._drop(peer)
        return is_kept and is_solved

    def _may_evaluate(self, block: str) -> bool:
        """Return whether there is a token for a ticket; its block pays even if all together have none left.

        Or else blocks that are first in every draw would use up what all have, refused ones included (so no ``Pace``).
        """
        now = trio.current_time()
        bucket = self._blocks.get(block) or TokenBucket(BLOCK_PER_SECOND, BLOCK_BURST, now)
        _remember(self._blocks, block, bucket, MAX_TRACKED)
        return bucket.take(now) and self._total.take(now)

    def _note_false(self, peer: PeerId) -> None:
        now = trio.current_time()
        count, last = self._false.get(peer, (0, now))
        count = count if now < last + SHUT_SECONDS else 0
        _remember(self._false, peer, (count + 1, now), MAX_TRACKED)
        if self._is_shut(peer):
            self._cut(peer, "it showed too many false tickets")

    def _note_vain(self, peer: PeerId) -> None:
        now = trio.current_time()
        if self._vain.find_wait(peer, now):
            self._cut(peer, "it showed too many tickets in vain")
        else:
            self._vain.count(peer, now)


def _remember(known: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    """Let ``key`` be the newest of at most ``limit`` keys."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > limit:
        known.popitem(last=False)
