"""Where a peer listens."""

from dataclasses import dataclass
from ipaddress import IPv6Address

from btard.errors import ConfigError

MAX_HOST = 253  # the longest DNS name
MAX_PORT = 65_535


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
