"""Who fetches which piece: the next one that waits, and at the end what a slower source is still busy with."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from btard.identity import PeerId

P = TypeVar("P")
SLOWER = 4
"""A piece may be taken from whoever has had it for so many times as long as one of ours takes."""


@dataclass(eq=False)
class Claim(Generic[P]):
    """A piece that one source is asked for; cancelled when another one takes it over."""

    piece: P
    source: PeerId
    since: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_lost: bool = False


class PieceBoard(Generic[P]):
    """The pieces, whatever they are, that are not here yet. A piece belongs to one source at a time."""

    def __init__(self, pieces: Iterable[P], shortest_s: float) -> None:
        self._waiting = deque(pieces)
        self._claims: list[Claim[P]] = []
        self._means: dict[PeerId, float] = {}
        self._shortest_s = shortest_s
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self._claims

    async def take(self, source: PeerId) -> Claim[P] | None:
        """Return the next piece for a source, None once all are here.

        Nobody waits for the slow: where nothing else is left, the oldest piece of another source is taken over
        when it has been under way much longer than ours are, and than ``shortest_s``.
        """
        while not self.is_done:
            if self._waiting:
                return self._claim(self._waiting.popleft(), source)
            others = [claim for claim in self._claims if claim.source != source]
            oldest = min(others, key=lambda claim: claim.since, default=None)
            due = trio.current_time() if oldest is None else oldest.since + self._compute_patience(source)
            if oldest is not None and due <= trio.current_time():
                oldest.is_lost = True
                oldest.scope.cancel()
                self._claims.remove(oldest)
                return self._claim(oldest.piece, source)
            with trio.move_on_at(due if oldest is not None else float("inf")):
                await self._changed.park()
        return None

    def _compute_patience(self, source: PeerId) -> float:
        """How long ``source`` waits for others' pieces; for ever while it has not shown what it can do."""
        mean = self._means.get(source)
        return float("inf") if mean is None else max(self._shortest_s, SLOWER * mean)

    def _claim(self, piece: P, source: PeerId) -> Claim[P]:
        claim = Claim(piece, source, trio.current_time())
        self._claims.append(claim)
        return claim

    def finish(self, claim: Claim[P]) -> None:
        """The piece is here."""
        took, mean = trio.current_time() - claim.since, self._means.get(claim.source)
        self._means[claim.source] = took if mean is None else 0.75 * mean + 0.25 * took
        self._claims.remove(claim)
        self._changed.unpark_all()

    def give_back(self, claim: Claim[P]) -> None:
        """The piece is not here: it waits for another source, unless one has taken it over."""
        if not claim.is_lost:
            self._claims.remove(claim)
            self._waiting.append(claim.piece)
            self._changed.unpark_all()
