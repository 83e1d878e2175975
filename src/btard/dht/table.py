"""
The routing table: nodes that answered us, the longest known first, few of one address block.

The table of `kademlia` gives old nodes precedence, which is what stops newcomers from pushing out
those who are there. Here, besides, a flood of node ids from few address blocks finds little room.
"""

from collections.abc import Iterable
from itertools import chain

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from btard.dht.blocks import MAX_PER_BLOCK, block_of
from btard.dht.messages import BUCKET_SIZE

MAX_NODES = 1024
"""Entries in all; keys are free until they carry work, so their number must be bounded."""
MAX_PER_BLOCK_IN_ALL = 16
"""Of one block in the whole table: there are more buckets than an attacker should find places in."""
QUIET_SECONDS = 30.0
"""A node that was heard so lately is not asked whether it lives when another wants its place."""


class NodeTable(RoutingTable):  # type: ignore[misc]  # kademlia has no types
    """Kademlia's table for one node. ``admit`` and ``forget`` are the only ways in and out."""

    def __init__(self, protocol: object, own: Node) -> None:
        super().__init__(protocol, BUCKET_SIZE, own)
        self._heard: dict[bytes, float] = {}

    @property
    def count(self) -> int:
        """How many nodes the table holds."""
        return sum(len(bucket) for bucket in self.buckets)

    @property
    def nodes(self) -> list[Node]:
        """Everyone in the table."""
        return [node for bucket in self.buckets for node in bucket.get_nodes()]

    @property
    def is_full(self) -> bool:
        """Whether nobody new comes in."""
        return self.count >= MAX_NODES

    def entry(self, node_id: bytes) -> Node | None:
        """Return the node with this id as we know it, or ``None``."""
        return self._bucket_of(Node(node_id))[node_id]

    def holds(self, node: Node) -> bool:
        """Return whether ``node`` is in the table, at this very address."""
        known = self.entry(node.id)
        return known is not None and known.same_home_as(node)

    def knows(self, node: Node) -> bool:
        """Return whether ``node`` is in the table, or waits for a place in its bucket, at this very address."""
        waiting = self._bucket_of(node).replacement_nodes.get(node.id)
        return self.holds(node) or (waiting is not None and waiting.same_home_as(node))

    def admit(self, node: Node, now: float) -> Node | None:
        """Note that ``node`` answered; return the node to ask now, because its place would be wanted if it were dead.

        Without a place in its bucket, and in its block's share, the node is not in the table afterwards.
        """
        if not self.may_come_in(node):
            return None
        while not (bucket := self._bucket_of(node)).add_node(node):
            if not bucket.has_in_range(self.node) and bucket.depth() % 5 == 0:  # paper, section 4.2
                head = bucket.head()
                return head if now - self._heard.get(head.id, -QUIET_SECONDS) >= QUIET_SECONDS else None
            self.split_bucket(self.buckets.index(bucket))
        self._heard[node.id] = now
        return None

    def forget(self, node: Node) -> None:
        """Drop ``node``, but not the same node known at another address: that may be a lie."""
        if self.holds(node):
            self._heard.pop(node.id, None)
            self.remove_contact(node)

    def closest(self, target: Node, asker: Node | None = None) -> list[Node]:
        """Return the `BUCKET_SIZE` nodes closest to ``target``, without the one that asks.

        The stock table takes whole buckets beside the target's until there are enough, which are not the closest.
        """
        others = (node for node in self.nodes if asker is None or not node.same_home_as(asker))
        return sorted(others, key=target.distance_to)[:BUCKET_SIZE]

    def may_come_in(self, node: Node) -> bool:
        """Return whether table and block have room for ``node``; one that moved within its block keeps its place."""
        known = self.entry(node.id)
        block = block_of(node.ip, node.port)
        if known is not None and block_of(known.ip, known.port) == block:
            return True
        if known is None and self.is_full:
            return False
        bucket = self._bucket_of(node)
        waiting = chain(bucket.nodes.values(), bucket.replacement_nodes.values())
        return _count(waiting, block) < MAX_PER_BLOCK and _count(self.nodes, block) < MAX_PER_BLOCK_IN_ALL

    def _bucket_of(self, node: Node) -> KBucket:
        return self.buckets[self.get_bucket_for(node)]


def _count(nodes: Iterable[Node], block: str) -> int:
    return sum(block_of(node.ip, node.port) == block for node in nodes)
