"""What waits to be sent to one peer: control messages and bulk messages, each in order, both bounded."""

from collections import deque
from dataclasses import dataclass, field

import trio

MESSAGE_COST = 64  # bytes that a queued message is charged beyond its head, so that empty ones are not free


@dataclass(eq=False)
class BulkItem:
    """A bulk message on its way; ``done`` is set once it was written, given up, or its link ended."""

    kind: int
    head: bytes
    payload: memoryview
    done: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Writer:
    """The right of one link to take from the outbox, until it is told to stop."""

    def __init__(self) -> None:
        self.is_stopped = False


class Outbox:
    """Filled by the hub, emptied by the writers of the peer's current link; what a broken link took is lost."""

    def __init__(self, max_messages: int) -> None:
        self._max_messages = max_messages
        self._bytes = 0
        self._busy = 0
        self._is_closed = False
        self.is_idle = True
        """Whether no control message waits or is being written, and it is not closed."""
        self._control: deque[tuple[int, bytes]] = deque()
        self._bulk: deque[BulkItem] = deque()
        self._control_lot = trio.lowlevel.ParkingLot()
        self._bulk_lot = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()

    @property
    def has_bulk(self) -> bool:
        """Whether a bulk message waits."""
        return bool(self._bulk)

    def push(self, kind: int, head: bytes, max_bytes: int) -> bool:
        """Queue a control message and return True, or False if it does not fit into ``max_bytes``."""
        cost = len(head) + MESSAGE_COST
        if len(self._control) >= self._max_messages or self._bytes + cost > max_bytes:
            return False
        self._bytes += cost
        self.is_idle = False
        self._control.append((kind, head))
        if self._control_lot:
            self._control_lot.unpark()
        return True

    def push_bulk(self, item: BulkItem) -> None:
        """Queue a bulk message; its sender bounds how many there are."""
        self._bulk.append(item)
        self._bulk_lot.unpark()

    def withdraw(self, item: BulkItem) -> None:
        """Forget a bulk message, also when it is being written."""
        if item in self._bulk:
            self._bulk.remove(item)
        item.scope.cancel()

    async def take_control(self, writer: Writer) -> tuple[int, bytes] | None:
        """Return the next control message, None once ``writer`` is to stop; ``note_written`` must follow."""
        while not self._control and not writer.is_stopped:
            await self._control_lot.park()
        if writer.is_stopped:
            return None
        kind, head = self._control.popleft()
        self._bytes -= len(head) + MESSAGE_COST
        self._busy += 1
        return kind, head

    def note_written(self) -> None:
        """Count a control message taken as done with."""
        self._busy -= 1
        if not self._control and not self._busy:
            self.is_idle = not self._is_closed
            self._flushed.unpark_all()

    async def take_bulk(self, writer: Writer) -> BulkItem | None:
        """Return the next bulk message, None once ``writer`` is to stop."""
        while not self._bulk and not writer.is_stopped:
            await self._bulk_lot.park()
        return None if writer.is_stopped else self._bulk.popleft()

    async def flush(self) -> None:
        """Return once every control message queued was written, or the outbox was closed."""
        while (self._control or self._busy) and not self._is_closed:
            await self._flushed.park()

    def stop(self, writer: Writer) -> None:
        """Let ``writer`` take nothing more; another may go on."""
        writer.is_stopped = True
        self._control_lot.unpark_all()
        self._bulk_lot.unpark_all()

    def close(self) -> None:
        """Throw away what waits and release everybody who waits for it."""
        for item in self._bulk:
            item.done.set()
        self._bulk.clear()
        self._control.clear()
        self._is_closed, self.is_idle = True, False
        self._flushed.unpark_all()
