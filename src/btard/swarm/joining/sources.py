"""Whom a newcomer asks for a state, and what became of those that it no longer asks."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
import trio

from btard.errors import NetworkError, RemoteProtocolError, Unreachable
from btard.identity import PeerId, short
from btard.swarm.asking import ask_in_turn

T = TypeVar("T")
log = structlog.get_logger(__name__)

MAX_STRIKES = 3
"""Pieces that may be taken from a source because others are faster, before it is no longer asked."""


@dataclass(frozen=True)
class Fault:
    """Why a source is no longer asked; it ``lied`` where what it sent is not what it was asked for."""

    reason: str
    lied: bool


class Sources:
    """The members that are asked, and the faults of those that are not any more."""

    def __init__(self, peers: Iterable[PeerId]) -> None:
        self._live = list(dict.fromkeys(peers))
        self._strikes: dict[PeerId, int] = {}
        self.faults: dict[PeerId, Fault] = {}

    @property
    def live(self) -> Sequence[PeerId]:
        """Those that are still asked, in the order in which they were given."""
        return tuple(self._live)

    def is_live(self, peer: PeerId) -> bool:
        """Return whether ``peer`` is still asked."""
        return peer in self._live

    def drop(self, peer: PeerId, reason: str, *, lied: bool = False) -> None:
        """Ask ``peer`` no more; the first reason stands, unless it turns out that it lied as well."""
        if peer in self._live:
            self._live.remove(peer)
        known = self.faults.get(peer)
        if known is None or (lied and not known.lied):
            self.faults[peer] = Fault(reason, lied)
            log.warning("a source is no longer asked", source=short(peer), reason=reason, lied=lied)

    def forgive(self) -> None:
        """Ask those again who did not lie: what they did not have of one thing they may have of another."""
        for peer in [peer for peer, fault in self.faults.items() if not fault.lied]:
            del self.faults[peer]
            self._strikes.pop(peer, None)
            self._live.append(peer)

    def strike(self, peer: PeerId) -> None:
        """Note that ``peer`` was too slow once more; the last source is never too slow."""
        self._strikes[peer] = self._strikes.get(peer, 0) + 1
        if self._strikes[peer] >= MAX_STRIKES and len(self._live) > 1:
            self.drop(peer, "it is much slower than the others")

    async def ask_all(
        self, peers: Sequence[PeerId], ask: Callable[[PeerId], Awaitable[T]], *, grace_s: float
    ) -> Mapping[PeerId, T]:
        """Return the answers; whoever gives a wrong one or none is dropped.

        Once more than half have answered, the others have ``grace_s`` seconds left, after which they are only late.
        """
        answers: dict[PeerId, T] = {}
        live = [peer for peer in peers if self.is_live(peer)]

        async def keep(peer: PeerId) -> None:
            answers[peer] = await ask(peer)
            if len(answers) == len(live) // 2 + 1:
                nursery.cancel_scope.relative_deadline = grace_s

        async with trio.open_nursery() as nursery:
            for peer in live:
                nursery.start_soon(self._try, peer, keep)
        return answers

    async def ask_first(
        self,
        peers: Sequence[PeerId],
        ask: Callable[[PeerId], Awaitable[T]],
        what: str,
        *,
        pause_s: float,
        limit_s: float,
    ) -> T:
        """Return the first right answer; each silent peer delays the next by ``pause_s``. The wrong are dropped.

        Raises:
            RemoteProtocolError, Unreachable: nobody gives one within ``limit_s``.
        """
        found: list[T] = []

        async def keep(peer: PeerId) -> None:
            found.append(await ask(peer))

        live = [peer for peer in peers if self.is_live(peer)]
        spread_s = len(live) * pause_s
        await ask_in_turn(
            live,
            lambda peer: self._try(peer, keep),
            lambda: bool(found),
            spread_s=spread_s,
            limit_s=spread_s + limit_s,
        )
        if not found:
            raise self.explain(what)
        return found[0]

    async def _try(self, peer: PeerId, ask: Callable[[PeerId], Awaitable[None]]) -> None:
        try:
            await ask(peer)
        except RemoteProtocolError as error:
            self.drop(peer, str(error), lied=True)
        except NetworkError as error:
            self.drop(peer, str(error))

    def explain(self, what: str) -> RemoteProtocolError | Unreachable:
        """Return the error that says why nobody gives us ``what``."""
        words = "; ".join(f"{short(peer)}: {fault.reason}" for peer, fault in sorted(self.faults.items()))
        liars = [peer for peer, fault in self.faults.items() if fault.lied]
        message = f"nobody is left who gives us {what}: {words or 'there is no source'}"
        if liars and len(liars) == len(self.faults):
            return RemoteProtocolError(message, liars[0])
        return Unreachable(message)
