"""The routing table: who answered first stays, and one address block finds little room."""

import random

import pytest
from kademlia.node import Node

from btard.dht import table as table_module
from btard.dht.blocks import MAX_PER_BLOCK, block_of
from btard.dht.messages import BUCKET_SIZE
from btard.dht.table import MAX_PER_BLOCK_IN_ALL, QUIET_SECONDS, NodeTable

OWN = Node(bytes(20), "8.0.0.1", 1)


@pytest.fixture
def table() -> NodeTable:
    """Return an empty table of the node at the origin of the key space."""
    return NodeTable(None, OWN)


def far_node(number: int, host: str) -> Node:
    """Return a node in the part of the key space that begins with 11110: five bits, so a full bucket is not split."""
    return Node(bytes([0b11110_000 | number & 7]) + number.to_bytes(19, "big"), host, 1)


def test_a_bucket_takes_few_nodes_of_one_block(table: NodeTable) -> None:
    """Sixty ids in one /24 get three places, and leave the rest to others."""
    for number in range(60):
        table.admit(far_node(number, f"8.8.8.{number}"), 0.0)
    assert table.count == MAX_PER_BLOCK
    for number in range(60, 120):
        table.admit(far_node(number, f"8.9.{number}.1"), 0.0)
    assert table.count >= BUCKET_SIZE
    assert sum(node.ip.startswith("8.8.8.") for node in table.nodes) == MAX_PER_BLOCK


def test_the_table_takes_few_nodes_of_one_block(table: NodeTable) -> None:
    """Ids spread over all buckets do not help: a block has a share of the whole table."""
    chance = random.Random(1)
    for number in range(300):
        table.admit(Node(chance.randbytes(20), f"9.{number >> 8}.{number & 255}.1", 1), 0.0)
    before = table.count
    for number in range(250):
        low = bytes(number // 10) + chance.randbytes(20)
        table.admit(Node(low[:20], f"8.8.8.{number}", 1), 0.0)
    assert table.count - before <= MAX_PER_BLOCK_IN_ALL
    assert any(block_of(node.ip, node.port) == "8.8.8.0/24" for node in table.nodes)


def test_a_node_that_moves_into_a_full_block_is_not_taken_along(table: NodeTable) -> None:
    """Changing the address is no way around the limit; within its own block a node may move."""
    for number in range(MAX_PER_BLOCK):
        table.admit(far_node(number, f"8.8.8.{number}"), 0.0)
    table.admit(far_node(9, "8.7.7.7"), 0.0)
    table.admit(far_node(9, "8.8.8.99"), 1.0)
    table.admit(far_node(0, "8.8.8.77"), 1.0)
    homes = {node.id: node.ip for node in table.nodes}
    assert homes[far_node(9, "").id] == "8.7.7.7"
    assert homes[far_node(0, "").id] == "8.8.8.77"


def test_old_nodes_keep_their_place(table: NodeTable) -> None:
    """Newcomers wait while the bucket is full; the longest silent is named, to be asked, unless heard lately."""
    near = [Node(bytes([number + 1]) + bytes(19), f"7.{number}.1.1", 1) for number in range(BUCKET_SIZE)]
    old = [far_node(number, f"8.{number}.1.1") for number in range(BUCKET_SIZE)]
    for node in (*near, *old):
        table.admit(node, 0.0)
    newcomer = far_node(99, "8.99.1.1")
    assert table.admit(newcomer, QUIET_SECONDS / 2) is None
    assert table.admit(newcomer, QUIET_SECONDS) == old[0]
    assert not table.holds(newcomer)
    assert table.knows(newcomer)
    table.forget(old[0])
    assert table.holds(newcomer)


def test_a_full_table_takes_nobody_new(table: NodeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known nodes are still refreshed."""
    monkeypatch.setattr(table_module, "MAX_NODES", 2)
    nodes = [far_node(number, f"8.{number}.1.1") for number in range(3)]
    for node in (*nodes, nodes[0]):
        table.admit(node, 0.0)
    assert [node.id for node in table.nodes] == [nodes[1].id, nodes[0].id]


def test_the_closest_are_the_closest(table: NodeTable) -> None:
    """Whatever buckets they are in, and without the one who asks."""
    chance = random.Random(2)
    for number in range(300):
        table.admit(Node(chance.randbytes(20), f"8.{number >> 8}.{number & 255}.1", 1), 0.0)
    target = Node(chance.randbytes(20))
    best, *others = sorted(table.nodes, key=target.distance_to)[: BUCKET_SIZE + 1]
    assert table.closest(target) == [best, *others[:-1]]
    assert table.closest(target, asker=best) == others


def test_a_false_address_forgets_nobody(table: NodeTable) -> None:
    """Silence at another address than the known one changes nothing."""
    table.admit(far_node(1, "8.8.8.1"), 0.0)
    table.forget(far_node(1, "8.8.8.2"))
    assert table.holds(far_node(1, "8.8.8.1"))
