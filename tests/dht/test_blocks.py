"""What counts as one voice: a block that one rents as a whole, an address where blocks mean nothing."""

import pytest
from kademlia.node import Node

from btard.dht.blocks import MAX_PER_BLOCK, block_of, customer_of, spread


@pytest.mark.parametrize(
    ("host", "block"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("8.8.8.200", "8.8.8.0/24"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("2a00:1450:4001:80b::200e", "2a00:1450:4001::/48"),
        ("127.3.4.5", "127.3.4.0/24"),
        ("127.0.0.1", "127.0.0.1 4000"),
        ("::1", "::1 4000"),
        ("192.168.1.7", "192.168.1.7 4000"),
        ("10.0.0.7", "10.0.0.7 4000"),
        ("fd00::7", "fd00::7 4000"),
    ],
)
def test_block_of_an_address(host: str, block: str) -> None:
    """Public /24 and /48 are blocks, also when IPv4 comes as IPv6; private addresses and this machine are not."""
    assert block_of(host, 4000) == block


@pytest.mark.parametrize(
    ("host", "customer"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("192.168.1.7", "192.168.1.7"),
        ("2a00:1450:4001:80b::200e", "2a00:1450:4001:80b::/64"),
        ("127.0.0.1", "127.0.0.1 4000"),
        ("::1", "::1 4000"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_customer_of_an_address(host: str, customer: str) -> None:
    """An IPv4 host, an IPv6 /64, or one port of this machine shares a rate limit."""
    assert customer_of(host, 4000) == customer


def test_the_closest_come_from_many_blocks() -> None:
    """Of a block only the closest few are chosen; then come others, farther away."""
    crowd = [Node(bytes([number]) * 20, f"8.8.8.{number}", 1) for number in range(1, 9)]
    others = [Node(bytes([100 + number]) * 20, f"8.8.{number}.1", 1) for number in range(9)]
    chosen = spread([*crowd, *others], 6)
    assert chosen == crowd[:MAX_PER_BLOCK] + others[: 6 - MAX_PER_BLOCK]
