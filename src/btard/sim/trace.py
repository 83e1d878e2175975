"""The trace of a simulated run: a running digest over every delivery and every event, readable on request."""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import TextIO

from blake3 import blake3

from btard.identity import PeerId, short
from btard.net import Message
from btard.rules.draws import Assignment
from btard.sim.clocks import true_time
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import Kind
from btard.swarm.state import State
from btard.wire import compute_seal_digest

NAMES = {int(kind): kind.name for kind in Kind} | {254: "REQUEST", 255: "ANSWER"}
STRANGER = -1
"""The number of whoever is no peer of the run."""


class Trace:
    """Notes what happens, in the order in which it happens."""

    def __init__(self, indices: Mapping[PeerId, int], file: TextIO | None) -> None:
        self._indices, self._file = indices, file
        self._hasher = blake3()
        self._newest = b"", b""
        self.deliveries = 0

    @property
    def digest(self) -> str:
        """The hex digest of all that was noted so far."""
        return self._hasher.hexdigest()

    def note_delivery(self, sender: PeerId, receiver: PeerId, message: Message, now: float) -> None:
        """Note a message at the moment of its arrival, in seconds of virtual time."""
        self.deliveries += 1
        kind, head, payload = message
        one, other = self._indices.get(sender, STRANGER), self._indices.get(receiver, STRANGER)
        sizes = len(head), 0 if payload is None else len(payload)
        if head is not self._newest[0]:  # the same to all, one after another
            self._newest = head, blake3(head).digest(16)
        self._hasher.update(
            b"%d %d %d %d %d %d %b" % (round(now * 1_000_000), one, other, kind, *sizes, self._newest[1])
        )
        if payload is not None:
            self._hasher.update(payload)
        if self._file is not None:
            content = blake3(head + bytes(payload or b"")).hexdigest(8)
            line = f"{now:10.4f} {one:>3} -> {other:<3} {NAMES.get(kind, kind)} {sum(sizes)} {content}"
            self._file.write(f"{line}\n")

    def note(self, index: int, text: str) -> None:
        """Note something that happened at a peer."""
        line = f"{true_time():10.4f} {index:>3}    {text}\n"
        self._hasher.update(line.encode())
        if self._file is not None:
            self._file.write(line)

    def note_event(self, index: int, event: Event) -> None:
        """Note what a peer told its observer: the fields in order, peers by their numbers, states by their seal."""
        skipped = {"result", "wall_s"}
        told = [
            f"{item.name}={self._tell(getattr(event, item.name))}" for item in fields(event) if item.name not in skipped
        ]
        if isinstance(event, RoundDone):
            told.append(f"seal={compute_seal_digest(event.result.seal).hex()[:16]}")
        self.note(index, " ".join([type(event).__name__, *told]))

    def _tell(self, value: object) -> str:
        match value:
            case Enum():
                return str(value.value)
            case bytes():
                return str(self._indices.get(PeerId(value), short(value)))
            case tuple():
                return "[" + ",".join(self._tell(item) for item in value) + "]"
            case State():
                return compute_seal_digest(value.seal).hex()[:16]
            case Assignment():
                return f"{self._tell(value.validator)}>{self._tell(value.target)}"
            case _:
                return str(value)
