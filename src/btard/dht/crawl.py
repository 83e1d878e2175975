"""
The iterative lookup of the Kademlia paper (section 2.3), bounded against lying nodes.

Rules of this file

1. A free slot takes the closest candidate not yet asked; the stock crawl waits for whole batches.
2. A question that stays open for `PATIENCE_SECONDS` gives up its slot; an answer still counts.
3. Who names nodes answers for them. Naming is free, so a liar names nodes that do not exist, all
   closer than the real ones; its candidates come after those of sources that proved right, and
   from `MAX_DOUBT` unanswered ones on they are not asked.
4. Of one address block only a few nodes count among the closest (`btard.dht.blocks`).
5. A lookup ends after `CRAWL_SECONDS` or `MAX_QUESTIONS` with what it has.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from kademlia.node import Node

from btard.dht.blocks import MAX_PER_BLOCK, block_of, spread

PARALLEL = 8
"""Kademlia's alpha. Higher than the paper's 3: a node that never answers then holds an eighth, not a third."""
PATIENCE_SECONDS = 0.25
CRAWL_SECONDS = 3.0
MIN_WAIT_SECONDS = 0.001
"""A wait that ends by rounding just before its moment would be repeated for ever on a virtual clock."""
MAX_QUESTIONS = 96
MAX_DOUBT = 4.0

Ask = Callable[[Node], Awaitable[list[Node] | None]]
_Home = tuple[bytes, str, int]
_OURSELVES = b""


def never() -> bool:
    """Return False: a lookup that goes on until the closest nodes are found."""
    return False


@dataclass(frozen=True)
class _Question:
    node: Node
    asked_at: float
    sources: frozenset[bytes]
    """Who named the node; of k, each answers for a k-th of it."""


class Crawl:
    """Finds the ``size`` nodes closest to ``target`` that answer, or stops as soon as ``is_enough``."""

    def __init__(self, ask: Ask, target: Node, size: int, is_enough: Callable[[], bool] = never) -> None:
        self._ask, self._target, self._size, self._is_enough = ask, target, size, is_enough
        self._now = asyncio.get_running_loop().time
        # By id and address: a liar who gives a false address for a node does not hide the true one.
        self._candidates: dict[_Home, Node] = {}
        self._sources: dict[_Home, set[bytes]] = {}
        self._doubt: Counter[bytes] = Counter()
        self._asked: set[_Home] = set()
        self._answered: dict[bytes, Node] = {}
        self._closest: list[Node] = []
        self._running: dict[asyncio.Future[list[Node] | None], _Question] = {}

    async def run(self, seeds: Iterable[Node]) -> list[Node]:
        """Return up to ``size`` nodes that answered, closest first."""
        self._add(seeds, _OURSELVES)
        end = self._now() + CRAWL_SECONDS
        try:
            while self._start_questions() and self._now() < end and not self._is_enough():
                await self._wait_until(min(end, self._next_free_slot()))
        finally:
            for future in self._running:
                future.cancel()
        return self._closest

    async def _wait_until(self, moment: float) -> None:
        """Take the answers that come next, or none until ``moment``."""
        seconds = max(MIN_WAIT_SECONDS, moment - self._now())
        done, _ = await asyncio.wait(self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            self._take_answer(self._running.pop(future), future.result())

    def _start_questions(self) -> bool:
        """Fill the free slots; return whether any question is still open."""
        while len(self._slots()) < PARALLEL and len(self._asked) < MAX_QUESTIONS:
            node = self._next()
            if node is None:
                break
            home = tuple(node)
            question = _Question(node, self._now(), frozenset(self._sources[home] - {_OURSELVES}))
            self._blame(question, 1)
            self._asked.add(home)
            self._running[asyncio.ensure_future(self._ask(node))] = question
        return bool(self._running)

    def _slots(self) -> list[float]:
        """Return when each question that holds a slot was asked."""
        now = self._now()
        return [one.asked_at for one in self._running.values() if now - one.asked_at < PATIENCE_SECONDS]

    def _next_free_slot(self) -> float:
        return min(self._slots(), default=float("inf")) + PATIENCE_SECONDS

    def _next(self) -> Node | None:
        """Return the most credible, then closest candidate that could still belong to the result, or ``None``."""
        busy = {question.node.id for question in self._running.values()}
        candidates = [
            (doubt, self._target.distance_to(node), node)
            for home, node in self._candidates.items()
            if home not in self._asked and node.id not in self._answered and node.id not in busy
            and (doubt := self._doubt_in(home)) < MAX_DOUBT
        ]  # fmt: skip
        for _, _, node in sorted(candidates, key=lambda one: one[:2]):
            if self._could_belong(node):
                return node
        return None

    def _doubt_in(self, home: _Home) -> float:
        """Return how many candidates of the most credible source of this one are not answered for."""
        return min(0.0 if source == _OURSELVES else max(0.0, self._doubt[source]) for source in self._sources[home])

    def _could_belong(self, node: Node) -> bool:
        """Return whether ``node``, if it answered, would be one of the closest."""
        if len(self._closest) == self._size and not self._is_closer(node, self._closest[-1]):
            return False
        block = block_of(node.ip, node.port)
        rivals = [one for one in self._closest if block_of(one.ip, one.port) == block]
        return len(rivals) < MAX_PER_BLOCK or self._is_closer(node, rivals[-1])

    def _is_closer(self, node: Node, other: Node) -> bool:
        return int(self._target.distance_to(node)) < int(self._target.distance_to(other))

    def _take_answer(self, question: _Question, found: list[Node] | None) -> None:
        if found is not None:
            self._blame(question, -2)  # what asking it cost its sources, and as much credit
            self._answered[question.node.id] = question.node
            self._closest = spread(sorted(self._answered.values(), key=self._target.distance_to), self._size)
            self._add(found, question.node.id)

    def _blame(self, question: _Question, share: int) -> None:
        for source in question.sources:
            self._doubt[source] += share / len(question.sources)  # type: ignore[assignment]

    def _add(self, nodes: Iterable[Node], source: bytes) -> None:
        for node in nodes:
            home = tuple(node)
            self._candidates.setdefault(home, node)
            self._sources.setdefault(home, set()).add(source)
