"""
Solving what it costs to join: identity work once for a key, then a join ticket, on all cores, beside the network.

The search for a ticket has no memory: every evaluation solves the puzzle with probability 2^-bits, whatever was tried
before. So going on with the draw of a newer round loses nothing, and the time that is left is the same at every
moment until it is over. Interrupted, it ends after the evaluations under way; the notebook knows where to go on.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import trio

from btard.identity import JoinTicket, PeerId, Puzzle
from btard.identity.work import find_identity_nonce
from btard.swarm.compute import BackgroundCompute, Compute
from btard.training.notebook import Notebook

REPORT_SECONDS = 1.0
SAVE_REPORTS = 5
"""Reports between two writes of the notebook: what a power cut costs is the work of as many seconds."""
RATE_REPORTS = 30
"""Reports over which the rate is taken: it follows a machine that gets other work."""
HASHES_AT_ONCE = 1 << 14
"""About 10 ms of hashing; Python hashes in one thread at a time, so more lanes would not help."""


@dataclass(frozen=True)
class Solving:
    """How the search for a ticket goes.

    ``evaluations`` counts all for this run, also before an interruption; ``per_second`` is the rate of late, 0 if not
    known yet; ``expected`` evaluations are needed on average, at any moment until it is over.
    """

    round: int
    evaluations: int
    per_second: float
    expected: int
    is_new_round: bool = False
    """Whether a newer round was begun with, since the last report: nothing is lost by it."""

    @property
    def mean_s(self) -> float:
        """Seconds that are left on average; infinite while the rate is not known."""
        return self.expected / self.per_second if self.per_second else math.inf

    @property
    def likely_s(self) -> float:
        """Seconds within which it ends with a probability of 95%: ln 20, about three times the mean."""
        return math.log(20) * self.mean_s


def make_lanes(cores: int) -> tuple[Compute, ...]:
    """Return one thread per core, each giving way to what else runs here; Argon2id does not hold the GIL."""
    return tuple(BackgroundCompute() for _ in range(cores))


async def work_for_identity(peer: PeerId, bits: int, lane: Compute, notebook: Notebook) -> int:
    """Return the nonce of our identity work, found now if the notebook has none that suffices."""
    nonce = notebook.identity_nonce
    if nonce is not None and find_identity_nonce(peer, bits, nonce, 1) is not None:
        return nonce
    first, found = 0, None
    while found is None:
        found = await lane.run(partial(find_identity_nonce, peer, bits, first, HASHES_AT_ONCE))
        first += HASHES_AT_ONCE
    notebook.note_identity(found)
    return found


async def solve_ticket(
    find_puzzle: Callable[[], Puzzle], lanes: Sequence[Compute], notebook: Notebook, tell: Callable[[Solving], None]
) -> JoinTicket:
    """Return a ticket that solves the puzzle of a recent round.

    Args:
        find_puzzle: gives the puzzle to work on; asked before every evaluation, so that it may follow the rounds.
        lanes: where to compute, one evaluation each at a time.
        notebook: where the search went on before, and will again if it is interrupted.
        tell: hears how it goes, every second.
    """
    search = _Search(find_puzzle, notebook)
    try:
        async with trio.open_nursery() as nursery:
            for lane in lanes:
                nursery.start_soon(search.work, lane, nursery.cancel_scope)
            nursery.start_soon(search.report, tell)
    finally:
        search.save()
    assert search.ticket is not None
    return search.ticket


class _Search:
    """Nonces in ascending order, each tried once, until one solves the puzzle of its moment."""

    def __init__(self, find_puzzle: Callable[[], Puzzle], notebook: Notebook) -> None:
        self.ticket: JoinTicket | None = None
        self._find_puzzle, self._notebook = find_puzzle, notebook
        self._puzzle = find_puzzle()
        self._next = notebook.find_start(self._puzzle)
        self._under_way: set[int] = set()
        self._evaluations = notebook.evaluations
        self._is_new_round = False

    async def work(self, lane: Compute, scope: trio.CancelScope) -> None:
        """Try one nonce after another on ``lane``; cancel ``scope`` when one solves the puzzle."""
        while self.ticket is None:
            puzzle, nonce = self._take()
            is_solution = await lane.run(partial(puzzle.is_solved_by, nonce))
            self._evaluations += 1
            if puzzle == self._puzzle:
                self._under_way.discard(nonce)
            if is_solution and self.ticket is None:
                self.ticket = puzzle.make_ticket(nonce)
                scope.cancel()

    def _take(self) -> tuple[Puzzle, int]:
        """Return what to try next; a puzzle that changed is begun from its first nonce."""
        puzzle = self._find_puzzle()
        if puzzle != self._puzzle:
            self._puzzle, self._next, self._is_new_round = puzzle, self._notebook.find_start(puzzle), True
            self._under_way.clear()
        nonce = self._next
        self._next += 1
        self._under_way.add(nonce)
        return puzzle, nonce

    async def report(self, tell: Callable[[Solving], None]) -> None:
        """Tell how it goes every second, and keep the notebook up to date."""
        marks = deque([(trio.current_time(), self._evaluations)], RATE_REPORTS)
        for number in count(1):
            await trio.sleep(REPORT_SECONDS)
            marks.append((trio.current_time(), self._evaluations))
            tell(self._sum_up(marks))
            if number % SAVE_REPORTS == 0:
                self.save()

    def _sum_up(self, marks: Sequence[tuple[float, int]]) -> Solving:
        (begun, before), (now, after) = marks[0], marks[-1]
        rate = (after - before) / (now - begun) if now > begun else 0.0
        is_new_round, self._is_new_round = self._is_new_round, False
        return Solving(self._puzzle.round, self._evaluations, rate, 1 << self._puzzle.bits, is_new_round)

    def save(self) -> None:
        """Write down where to go on: at the lowest nonce whose evaluation did not end."""
        first = min(self._under_way, default=self._next)
        self._notebook.note_search(self._puzzle, first, self._evaluations, self.ticket)
