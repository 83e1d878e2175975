"""Where a peer listens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from btard.errors import ConfigError

MAX_HOST = 253  # the longest DNS name
MAX_PORT = 65_535
TENANT_BITS = 64  # of an IPv6 address: what one customer is given at least, so one address more costs nothing
BLOCK_BITS = {4: 24, 6: 48}  # of an address by version: what one attacker rents many addresses of
T = TypeVar("T")
_THIS_MACHINE = IPv4Network("127.0.0.0/24")  # the rest of the loopback network plays many networks in tests


@dataclass(frozen=True, order=True)
class Address:
    """A host (name, IPv4 or IPv6) and a TCP port; port 0 lets the system choose when listening."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address written as ``host:port``, an IPv6 host in brackets.

        Raises:
            ConfigError: the text is no such address.
        """
        host, colon, port = text.rpartition(":")
        is_bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if is_bracketed else host
        if not colon or not _is_port(port) or not (_is_ipv6(host) if is_bracketed else _is_name(host)):
            raise ConfigError(f"{text!r} is not an address; write host:port, for example 127.0.0.1:4000 or [::1]:4000")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT


def _is_name(host: str) -> bool:
    letters = host.replace("-", "").replace(".", "").replace("_", "")
    return 0 < len(host) <= MAX_HOST and letters.isascii() and letters.isalnum()


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def find_origin(host: str) -> str:
    """Return what stands for all addresses of whoever has ``host``: an IPv4 address, or the /64 of an IPv6 one."""
    if not _is_ipv6(host):
        return host
    address = IPv6Address(host.partition("%")[0])
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else str(IPv6Network((address, TENANT_BITS), strict=False))


@lru_cache(maxsize=1024)  # asked for every question of every stranger
def find_block(host: str) -> str:
    """Return what stands for all addresses that one attacker rents together: an IPv4 /24 or an IPv6 /48.

    Addresses that are nobody's to rent, on private networks and this machine, and names count one by one.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    plays_a_network = address.version == 4 and address.is_loopback and address not in _THIS_MACHINE
    if not address.is_global and not plays_a_network:
        return str(address)
    return str(ip_network((address, BLOCK_BITS[address.version]), strict=False))


def is_loopback(host: str) -> bool:
    """Return whether a host is a literal address of this machine alone, or the usual name of one."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def find_busiest(accounts: Iterable[T]) -> T:
    """Return the origin, or whatever stands for one, that occurs most often; of several the one that occurs first."""
    return Counter(accounts).most_common(1)[0][0]
