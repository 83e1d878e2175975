"""One direction of a link in memory, and the courier that carries what is under way."""

from collections import deque
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from heapq import heappop, heappush

import trio

from btard.identity import PeerId
from btard.net.link import Message

PIPE_MESSAGES = 1024  # messages under way in one direction of a link; its sender then waits

Take = Callable[[Message], None]
Arrival = Callable[[PeerId, PeerId, Message, float], None]
"""Told (sender, receiver, message, virtual time) when a message arrives."""


def ignore(message: Message) -> None:
    """Take no interest."""


class Courier:
    """Carries the messages of all pipes of a network: one heap, and one task while anything is under way.

    Messages that arrive at the same time do so in the order in which they were sent, in one step of the task.
    """

    def __init__(self) -> None:
        self._bags: dict[float, list[tuple[Pipe, Message]]] = {}
        self._dues: list[float] = []
        self._scope: trio.CancelScope | None = None

    def carry(self, due: float, pipe: "Pipe", message: Message) -> None:
        """Let ``message`` arrive in ``pipe`` at the virtual time ``due``, and not before the caller's next wait."""
        try:
            self._bags[due].append((pipe, message))
        except KeyError:
            self._bags[due] = [(pipe, message)]
            self._set_out(due)

    def _set_out(self, due: float) -> None:
        heappush(self._dues, due)
        if self._scope is None:
            self._scope = trio.CancelScope(deadline=due)
            trio.lowlevel.spawn_system_task(self._run)
        elif due < self._scope.deadline:
            self._scope.deadline = due

    async def _run(self) -> None:
        while self._dues:
            with trio.CancelScope(deadline=self._dues[0]) as self._scope:
                await trio.sleep_forever()
            now = trio.lowlevel.current_clock().current_time()
            while self._dues and self._dues[0] <= now:
                for pipe, message in self._bags.pop(heappop(self._dues)):
                    pipe.arrive(message, now)
        self._scope = None


class Pipe:
    """One direction of a link. Control and bulk messages each keep their order; control goes before bulk.

    ``announce`` is told of each message that arrives; while the receiver is ``asleep``, nobody takes it.
    """

    def __init__(
        self, courier: Courier, announce: Arrival, sender: PeerId, receiver: PeerId, asleep: Collection[PeerId]
    ) -> None:
        self.is_finished = False
        self._clock = trio.lowlevel.current_clock()
        self._courier, self._announce = courier, announce
        self._sender, self._receiver, self._asleep = sender, receiver, asleep
        self._is_discarded = False
        self._places = 0  # taken by messages, each from when it is sent until somebody takes it
        self._newest_control = self._newest_bulk = 0.0
        self._control: deque[Message] = deque()
        self._bulk: deque[Message] = deque()
        self._listener: Take = ignore
        self._context: Context | None = None  # of the task that listens
        self._broken: BaseException | None = None
        self._reader = trio.lowlevel.ParkingLot()
        self._writers, self._is_awaited = trio.lowlevel.ParkingLot(), False

    def has_room(self) -> bool:
        """Return whether another message fits, and the pipe has not ended."""
        return self._places < PIPE_MESSAGES and not self.is_finished

    async def wait_room(self) -> None:
        """Return once another message fits, or the pipe ended."""
        while not (self.is_finished or self.has_room()):
            self._is_awaited = True
            await self._writers.park()

    def _tell_writer(self) -> None:
        """Let somebody go on who waits for room."""
        self._writers.unpark()
        self._is_awaited = bool(self._writers)

    def put(self, message: Message, delay: float) -> None:
        """Add a message that arrives after ``delay`` seconds, and after its predecessors of the same class."""
        due = self._clock.current_time() + delay
        if message.payload is not None:
            self._newest_bulk = due = max(self._newest_bulk, due)
        elif due < self._newest_control:
            due = self._newest_control
        else:
            self._newest_control = due
        self._places += 1
        self._courier.carry(due, self, message)

    def arrive(self, message: Message, now: float) -> None:
        """Let a message that was under way be read; one that nobody reads any more is lost."""
        if self._is_discarded:
            self._places -= 1
            return
        self._announce(self._sender, self._receiver, message, now)
        if self._context is None or self._control or self._bulk or self._receiver in self._asleep:
            (self._control if message.payload is None else self._bulk).append(message)
            self._reader.unpark()
        else:
            self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        """Pass a message to the listener; what goes wrong there is raised in the task that listens."""
        assert self._context is not None
        self._places -= 1
        if self._is_awaited:
            self._tell_writer()
        try:
            self._context.run(self._listener, message)
        except BaseException as error:  # noqa: BLE001  it is raised again, where it belongs
            self._broken, self._context = error, None
            self.discard()
        if self.is_finished and self._is_done:
            self._reader.unpark_all()

    @property
    def _is_done(self) -> bool:
        return self._broken is not None or (self.is_finished and not self._places)

    async def take(self) -> Message | None:
        """Return the next message to arrive, None once the sender finished and all is taken."""
        while True:
            arrived = self._control or self._bulk
            if arrived:
                self._places -= 1
                self._tell_writer()
                return arrived.popleft()
            if self._is_done:
                return None
            await self._reader.park()

    async def listen(self, take: Take) -> None:
        """Pass every message to ``take`` at the moment of its arrival, until the sender finished and all is taken.

        It is called in this task's context, though not by this task; what it raises is raised here.
        """
        self._context, self._listener = copy_context(), take
        try:
            while True:
                while self._control or self._bulk:
                    self._hand_over((self._control or self._bulk).popleft())
                if self._is_done:
                    break
                await self._reader.park()
        finally:
            self._context = None
        if self._broken is not None:
            raise self._broken

    def finish(self) -> None:
        """Let nothing more in."""
        self.is_finished = True
        self._reader.unpark_all()
        self._writers.unpark_all()

    def discard(self) -> None:
        """Let nothing more in and throw away what waits."""
        self._is_discarded = True
        self._places -= len(self._control) + len(self._bulk)
        self._control.clear()
        self._bulk.clear()
        self.finish()
