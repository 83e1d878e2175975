"""
What one address may cost us: how often it may ask, how long we go on asking a dead node, and
which addresses we let others point us at. Time is an argument, in seconds of a monotonic clock.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache

from btard.dht.blocks import customer_of

REQUESTS_PER_SECOND = 200.0
REQUESTS_BURST = 1000.0
TOTAL_PER_SECOND = 2000.0
"""All strangers together, and all known nodes: verifying this many signatures takes about a tenth of a core."""
TOTAL_BURST = 8000.0
MAX_TRACKED = 4096
"""Addresses remembered at once; the least recently seen is forgotten first."""

DEAD_SECONDS_FIRST = 1.0
DEAD_SECONDS_MAX = 60.0

_Address = tuple[str, int]


class TokenBucket:
    """Allows ``rate`` events per second on average and ``burst`` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._updated = burst, now

    def take(self, now: float) -> bool:
        """Return whether one more event is allowed now, and count it if so."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RequestLimit:
    """Requests allowed per sender and in total, before any signature is checked.

    Known nodes share a total of their own, so that strangers, whose addresses may be forged, cannot use it up.
    """

    def __init__(self, now: float) -> None:
        self._totals = [TokenBucket(TOTAL_PER_SECOND, TOTAL_BURST, now) for _ in range(2)]
        self._senders: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def allows(self, address: _Address, now: float, *, is_known: bool = False) -> bool:
        """Return whether a request from ``address`` may be looked at, and count it if so."""
        sender = customer_of(*address)
        bucket = self._senders.pop(sender, None) or TokenBucket(REQUESTS_PER_SECOND, REQUESTS_BURST, now)
        self._senders[sender] = bucket
        if len(self._senders) > MAX_TRACKED:
            self._senders.popitem(last=False)
        return bucket.take(now) and self._totals[is_known].take(now)


class DeadNodes:
    """Nodes that did not answer, by (node id, address): not asked again for 1, 2, 4 ... up to 60 seconds.

    Without it neighbours bring a dead node up again in every lookup, and each costs a timeout.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def is_dead(self, node: Hashable, now: float) -> bool:
        """Return whether asking ``node`` now is a waste of time."""
        until, _ = self._until.get(node, (0.0, 0.0))
        return now < until

    def failed(self, node: Hashable, now: float) -> None:
        """Note that ``node`` did not answer; each time doubles its silence."""
        _, before = self._until.pop(node, (0.0, DEAD_SECONDS_FIRST / 2))
        pause = min(2 * before, DEAD_SECONDS_MAX)
        self._until[node] = (now + pause, pause)
        if len(self._until) > MAX_TRACKED:
            self._until.popitem(last=False)

    def alive(self, node: Hashable) -> None:
        """Let ``node``, which is there, be asked again; its next silence still counts as a further one.

        Otherwise a node that answers pings and nothing else would cost every lookup a timeout.
        """
        if node in self._until:
            _, pause = self._until[node]
            self._until[node] = (0.0, pause)

    def answered(self, node: Hashable) -> None:
        """Forget that ``node``, which answered a question, was ever silent."""
        self._until.pop(node, None)


@lru_cache(maxsize=MAX_TRACKED)
def plausible_host(host: str, told_by: str) -> str | None:
    """Return ``host`` in normal form if a node at ``told_by`` may send us there, else ``None``.

    Both are literal IP addresses of one family. A node outside a private network must not aim our
    packets at addresses inside it, nor any node that is not on this machine at this machine.
    """
    try:
        address, source = ipaddress.ip_address(host), ipaddress.ip_address(told_by)
    except ValueError:
        return None
    if address.version != source.version or "%" in host or address.is_unspecified or address.is_multicast:
        return None
    if address.is_loopback or address.is_reserved:
        is_allowed = address.is_loopback and source.is_loopback
    else:
        is_allowed = address.is_global or not source.is_global
    return str(address) if is_allowed else None
