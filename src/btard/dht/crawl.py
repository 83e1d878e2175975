"""
The iterative lookup of the Kademlia paper (section 2.3), bounded against lying nodes.

The stock crawl asks in batches, so each fake or dead node holds up a batch, and it keeps no bound
on how many it asks. Here a slot that becomes free takes the closest candidate not yet asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from kademlia.node import Node

PARALLEL = 8
"""Kademlia's alpha. Higher than the paper's 3: a node that never answers then holds an eighth, not a third."""
MAX_QUESTIONS_PER_CRAWL = 96

Ask = Callable[[Node], Awaitable[list[Node] | None]]


class Crawl:
    """Finds the ``size`` nodes closest to ``target`` that answer."""

    def __init__(self, ask: Ask, target: Node, size: int) -> None:
        self._ask, self._target, self._size = ask, target, size
        # By id and address: a liar who gives a false address for a node does not hide the true one.
        self._candidates: dict[tuple[bytes, str, int], Node] = {}
        self._asked: set[tuple[bytes, str, int]] = set()
        self._answered: dict[bytes, Node] = {}
        self._running: dict[asyncio.Future[list[Node] | None], Node] = {}

    async def run(self, seeds: Iterable[Node]) -> list[Node]:
        """Return up to ``size`` nodes that answered, closest first; asks at most `MAX_QUESTIONS_PER_CRAWL`."""
        self._add(seeds)
        try:
            while self._start_questions():
                done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    self._take_answer(self._running.pop(future), future.result())
        finally:
            for future in self._running:
                future.cancel()
        return self._closest()

    def _start_questions(self) -> bool:
        """Fill the free slots; return whether any question is still open."""
        while len(self._running) < PARALLEL and len(self._asked) < MAX_QUESTIONS_PER_CRAWL:
            node = self._next()
            if node is None:
                break
            self._asked.add(tuple(node))
            self._running[asyncio.ensure_future(self._ask(node))] = node
        return bool(self._running)

    def _next(self) -> Node | None:
        """Return the closest candidate that could still belong to the result, or ``None``."""
        busy = {node.id for node in self._running.values()}
        open_candidates = (
            node
            for home, node in self._candidates.items()
            if home not in self._asked and node.id not in self._answered and node.id not in busy
        )
        best = min(open_candidates, key=self._target.distance_to, default=None)
        closest = self._closest()
        if best is not None and len(closest) == self._size:
            return best if self._target.distance_to(best) < self._target.distance_to(closest[-1]) else None
        return best

    def _take_answer(self, node: Node, found: list[Node] | None) -> None:
        if found is not None:
            self._answered[node.id] = node
            self._add(found)

    def _add(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.id not in self._answered:
                self._candidates.setdefault(tuple(node), node)

    def _closest(self) -> list[Node]:
        return sorted(self._answered.values(), key=self._target.distance_to)[: self._size]
