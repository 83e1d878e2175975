"""
Address blocks: what one attacker has many addresses of, so that a block counts as one voice.

A key costs nothing and an address in a block that one already rents costs little; another block
costs another contract. So a routing table, a lookup and a store take few nodes of one block.
Addresses that are nobody's to rent, on private networks and this machine, count one by one: a
laboratory behind one router, or a demo, is not an attack. Of the loopback network only 127.0.0.0/24
is spared, so that one machine can play many networks in a test.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

from kademlia.node import Node

MAX_PER_BLOCK = 3
"""Nodes of one block in a bucket, and among the closest that a lookup returns."""
BLOCK_BITS_IPV4 = 24
BLOCK_BITS_IPV6 = 48
CUSTOMER_BITS_IPV6 = 64
"""What one customer is given at least: whoever has one address of it has all."""
MAX_CACHED = 8192

_THIS_MACHINE = IPv4Network("127.0.0.0/24")


@lru_cache(maxsize=MAX_CACHED)
def block_of(host: str, port: int) -> str:
    """Return the name of the block of a literal IP address, or of the address itself where blocks mean nothing."""
    address = _parse(host)
    plays_a_network = address.version == 4 and address.is_loopback and address not in _THIS_MACHINE
    if not address.is_global and not plays_a_network:
        return f"{host} {port}"
    bits = BLOCK_BITS_IPV4 if address.version == 4 else BLOCK_BITS_IPV6
    return str(ip_network((address, bits), strict=False))


@lru_cache(maxsize=MAX_CACHED)
def customer_of(host: str, port: int) -> str:
    """Return what shares one rate limit: a host or an IPv6 /64; on this machine a port, for it may run many peers."""
    address = _parse(host)
    if address.is_loopback:
        return f"{host} {port}"
    return str(address) if address.version == 4 else str(ip_network((address, CUSTOMER_BITS_IPV6), strict=False))


def _parse(host: str) -> IPv4Address | IPv6Address:
    """Return a literal address, an IPv4 one also where it comes in IPv6 clothes."""
    address = ip_address(host)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def spread(nodes: Iterable[Node], size: int) -> list[Node]:
    """Return the first ``size`` of ``nodes`` of which no more than `MAX_PER_BLOCK` share a block."""
    chosen: list[Node] = []
    count: Counter[str] = Counter()
    for node in nodes:
        block = block_of(node.ip, node.port)
        count[block] += 1
        if count[block] <= MAX_PER_BLOCK:
            chosen.append(node)
        if len(chosen) == size:
            break
    return chosen
