"""How long what honest peers say to each other really takes, and who kept them waiting: the attack, or the machine."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from btard.identity import PeerId
from btard.net.link import Message
from btard.net.session import Session, _Lane

BUSY = 0.5
"""Share of a core that the target must have had while something was late, for the attack to be the cause."""


class Delays:
    """Measures control messages between honest peers of one process, from ``send`` to the handler, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.honest: Collection[PeerId] = ()
        self._sent: dict[tuple[PeerId, PeerId], deque[tuple[bytes, float]]] = defaultdict(deque)
        self._worst_s = 0.0

    def watch(self) -> None:
        """Measure from now on, in this process."""
        send, take = Session.send, Session._take

        def note_sent(session: Session, kind: int, head: bytes) -> None:
            self.note_sent(session._me, session.peer, head)
            send(session, kind, head)

        def note_arrived(session: Session, lane: _Lane, message: Message) -> None:
            if message.payload is None:
                self.note_arrived(session.peer, session._me, message.head)
            take(session, lane, message)

        Session.send = note_sent  # type: ignore[method-assign]
        Session._take = note_arrived  # type: ignore[method-assign]

    def note_sent(self, sender: PeerId, receiver: PeerId, head: bytes) -> None:
        """Remember when something was said."""
        if sender in self.honest and receiver in self.honest:
            self._sent[sender, receiver].append((head, self._clock()))

    def note_arrived(self, sender: PeerId, receiver: PeerId, head: bytes) -> None:
        """Measure it; what was said before it on that link and has not come is lost."""
        waiting = self._sent[sender, receiver]
        while waiting:
            said, when = waiting.popleft()
            if said == head:
                self._worst_s = max(self._worst_s, self._clock() - when)
                return

    def restart(self, honest: Collection[PeerId]) -> None:
        """Measure another swarm."""
        self.honest = honest
        self._sent.clear()

    def take_worst(self) -> float:
        """Return the longest delay since the last call, of what is still under way too."""
        now, worst_s = self._clock(), self._worst_s
        self._worst_s = 0.0
        return max([worst_s, *(now - waiting[0][1] for waiting in self._sent.values() if waiting)])


@dataclass(frozen=True)
class Lateness:
    """The longest delay of an attack, and what share of a core the target had while it lasted."""

    delay_s: float
    stall_s: float
    share: float
    load: float

    @property
    def worst_s(self) -> float:
        """How late anything was: a message, or the event loop itself and with it all deadlines."""
        return max(self.delay_s, self.stall_s)

    def explain(self, bound_s: float) -> str:
        """Say whether Delta was kept, and if not, because of what."""
        if self.worst_s <= bound_s:
            return f"Delta = {bound_s:g} s was kept (at most {self.worst_s:.2f} s): a bug"
        who = "the attack kept the event loop busy: a bug" if self.share >= BUSY else "the machine was busy with others"
        late = (
            f"a message between honest peers took {self.delay_s:.1f} s, the loop stood still for {self.stall_s:.1f} s"
        )
        return (
            f"Delta = {bound_s:g} s was exceeded: {late}, at {self.share:.0%} of a core and load {self.load:.1f}: {who}"
        )


def find_worst(statuses: Sequence[Mapping[str, Any]]) -> Lateness:
    """Return when something was latest, and who ran while it was."""
    if not statuses:
        return Lateness(0.0, 0.0, 0.0, 0.0)
    late = max(statuses, key=lambda status: max(status["delay"], status["stall"]))
    worst_s, end = max(late["delay"], late["stall"]), late["time"]
    before = [status for status in statuses if status["time"] < end]
    since = next((item for item in reversed(before) if item["time"] <= end - worst_s), before[0] if before else late)
    share = (late["cpu"] - since["cpu"]) / max(end - since["time"], 1e-9)
    return Lateness(late["delay"], late["stall"], share, late["load"])
