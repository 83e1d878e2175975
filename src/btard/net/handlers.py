"""What is done with messages, by kind; the parts of a peer put themselves there as they come to life."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import trio

from btard.identity import PeerId
from btard.net.link import Target

PATIENCE_S = 10.0
"""How long a request waits for its handler: peers start at different times, and their parts one after another."""


class BulkHandler(Protocol):
    """Receives the bulk messages of one kind."""

    def sink(self, peer: PeerId, head: bytes, size: int) -> Target | None:
        """Return ``size`` writable bytes for a payload, or a window, or None to refuse it.

        The link writes there until it ends, or ``done`` is called, or ``sink`` is called again for this peer, or
        ``Hub.drop_bulk``.
        """

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Take the complete payload."""


class Loan(NamedTuple):
    """A payload for one peer, who may take its time: its owner has it back when ``scope`` is cancelled or too late.

    Nothing refers to the payload then, though its peer read a part of it only and the link goes on.
    """

    payload: memoryview
    scope: trio.CancelScope


ControlHandler = Callable[[PeerId, bytes], None]
RequestHandler = Callable[[PeerId, bytes], Awaitable[tuple[bytes, Loan | None]]]


class RequestHandlers(dict[int, RequestHandler]):
    """By kind; who waits for one is told when it comes."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = trio.lowlevel.ParkingLot()

    def __setitem__(self, kind: int, handler: RequestHandler) -> None:
        super().__setitem__(kind, handler)
        self._changed.unpark_all()

    async def find(self, kind: int) -> RequestHandler | None:
        """Return the handler of a kind, at once if there is one; None after PATIENCE_S without it."""
        if kind not in self:
            with trio.move_on_after(PATIENCE_S):
                while kind not in self:
                    await self._changed.park()
        return self.get(kind)


@dataclass(frozen=True)
class Handlers:
    """What is done with messages, by kind; messages of other kinds are dropped."""

    on_control: dict[int, ControlHandler] = field(default_factory=dict)
    bulk: dict[int, BulkHandler] = field(default_factory=dict)
    serve: RequestHandlers = field(default_factory=RequestHandlers)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have the same handlers afterwards as now."""
        tables: tuple[dict[int, Any], ...] = self.on_control, self.bulk, self.serve
        before = [dict(table) for table in tables]
        try:
            yield
        finally:
            for table, kept in zip(tables, before, strict=True):
                table.clear()
                table.update(kept)
