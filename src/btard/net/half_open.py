"""Handshakes that others have begun: bounded in time and number, and a flood of them crowds out itself alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from btard.identity import PeerId
from btard.net.address import find_busiest

HANDSHAKE_SECONDS = 10.0
MAX_SILENT = 64
"""Connections on which nothing was said yet: a dialler's first message comes right behind its connection."""
MAX_STRANGERS = 64
"""Handshakes of strangers after their first message, which come at a pace (see ``Arrivals``)."""
MAX_KNOWN = 256
"""Handshakes of peers that we know: all members at the same time."""

Account = PeerId | str
"""On whose account a handshake goes: a peer that we know, or else the origin of the connection."""


class HalfOpen:
    """The handshakes under way, each for at most HANDSHAKE_SECONDS.

    Who has said nothing, strangers and known peers have places of their own: none of them takes the others'.
    """

    def __init__(self) -> None:
        self._silent, self._strangers, self._known = _Crowd(MAX_SILENT), _Crowd(MAX_STRANGERS), _Crowd(MAX_KNOWN)

    def __len__(self) -> int:
        return len(self._silent) + len(self._strangers) + len(self._known)

    @contextmanager
    def place(self, origin: str) -> Iterator[trio.CancelScope]:
        """Hold a place while the body runs; the body is cancelled once its time is over or it has to give way."""
        with trio.move_on_after(HANDSHAKE_SECONDS) as scope:
            self._silent.enter(scope, origin)
            try:
                yield scope
            finally:
                for crowd in (self._silent, self._strangers, self._known):
                    crowd.leave(scope)

    def admit(self, scope: trio.CancelScope, account: Account) -> None:
        """Give the handshake with this scope, whose first message was let in, a place on somebody's account."""
        self._silent.leave(scope)
        (self._known if isinstance(account, bytes) else self._strangers).enter(scope, account)


class _Crowd:
    """At most ``most`` handshakes: for one more, the oldest on the account that has most gives way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._accounts: dict[trio.CancelScope, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def enter(self, scope: trio.CancelScope, account: Account) -> None:
        if len(self) >= self._most:
            busiest = find_busiest(self._accounts.values())
            oldest = next(other for other, owner in self._accounts.items() if owner == busiest)
            self.leave(oldest)
            oldest.cancel()
        self._accounts[scope] = account

    def leave(self, scope: trio.CancelScope) -> None:
        self._accounts.pop(scope, None)
