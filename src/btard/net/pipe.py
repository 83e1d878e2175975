"""One direction of a link in memory, and the courier that carries what takes time."""

import itertools
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

import trio

from btard.net.link import Message

PIPE_MESSAGES = 1024  # messages under way in one direction of a link; its sender then waits


class Courier:
    """Carries the delayed messages of all pipes of a network: one heap, and one task while anything is under way.

    Messages that arrive at the same time do so in the order in which they were sent.
    """

    def __init__(self) -> None:
        self._bag: list[tuple[float, int, Pipe, Message]] = []
        self._serials = itertools.count()
        self._scope: trio.CancelScope | None = None

    def carry(self, due: float, pipe: "Pipe", message: Message) -> None:
        """Let ``message`` arrive in ``pipe`` at the virtual time ``due``, which is in the future."""
        heappush(self._bag, (due, next(self._serials), pipe, message))
        if self._scope is None:
            self._scope = trio.CancelScope(deadline=due)
            trio.lowlevel.spawn_system_task(self._run)
        elif due < self._scope.deadline:
            self._scope.deadline = due

    async def _run(self) -> None:
        while self._bag:
            with trio.CancelScope(deadline=self._bag[0][0]) as self._scope:
                await trio.sleep_forever()
            now = trio.lowlevel.current_clock().current_time()
            while self._bag and self._bag[0][0] <= now:
                _, _, pipe, message = heappop(self._bag)
                pipe.arrive(message)
        self._scope = None


class Pipe:
    """One direction of a link. Control and bulk messages each keep their order; control goes before bulk.

    ``announce`` is called with each message when it arrives.
    """

    def __init__(self, courier: Courier, announce: Callable[[Message], None]) -> None:
        self.is_finished = False
        self._courier, self._announce = courier, announce
        self._is_discarded = False
        self._under_way = 0
        self._newest_control = self._newest_bulk = 0.0
        self._control: deque[Message] = deque()
        self._bulk: deque[Message] = deque()
        self._reader = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    async def wait_room(self) -> None:
        """Return once another message fits, or the pipe ended."""
        while not self.is_finished and self._count() >= PIPE_MESSAGES:
            await self._writers.park()

    def put(self, message: Message, delay: float) -> None:
        """Add a message that arrives after ``delay`` seconds, and after its predecessors of the same class."""
        now = trio.lowlevel.current_clock().current_time()
        if message.payload is None:
            self._newest_control = due = max(self._newest_control, now + delay)
        else:
            self._newest_bulk = due = max(self._newest_bulk, now + delay)
        self._under_way += 1
        if due <= now:
            self.arrive(message)
        else:
            self._courier.carry(due, self, message)

    def arrive(self, message: Message) -> None:
        """Let a message that was under way be read; one that nobody reads any more is lost."""
        self._under_way -= 1
        if self._is_discarded:
            return
        self._announce(message)
        (self._control if message.payload is None else self._bulk).append(message)
        if self._reader:
            self._reader.unpark()

    async def take(self) -> Message | None:
        """Return the next message to arrive, None once the sender finished and all is taken."""
        while True:
            arrived = self._control or self._bulk
            if arrived:
                if self._writers:
                    self._writers.unpark()
                return arrived.popleft()
            if self.is_finished and not self._under_way:
                return None
            await self._reader.park()

    def finish(self) -> None:
        """Let nothing more in."""
        self.is_finished = True
        self._reader.unpark_all()
        self._writers.unpark_all()

    def discard(self) -> None:
        """Let nothing more in and throw away what waits."""
        self._is_discarded = True
        self._control.clear()
        self._bulk.clear()
        self.finish()

    def _count(self) -> int:
        return self._under_way + len(self._control) + len(self._bulk)
