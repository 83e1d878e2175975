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

NAMES = {int(kind): kind.name for kind in Kind} | {254: "REQUEST", 255: "ANSWER"}
STRANGER = -1
"""The number of whoever is no peer of the run."""


class Trace:
    """Notes what happens, in the order in which it happens."""

    def __init__(self, indices: Mapping[PeerId, int], file: TextIO | None) -> None:
        self._indices, self._file = indices, file
        self._hasher, self._unhashed = blake3(), bytearray()
        self._pairs: dict[tuple[PeerId, PeerId], bytes] = {}
        self._newest, self._content = Message(0, b""), b""
        self._now, self._stamp = -1.0, b""
        self._fields: dict[type[Event], tuple[str, ...]] = {}
        self.deliveries = 0

    @property
    def digest(self) -> str:
        """The hex digest of all that was noted so far."""
        self._hash()
        return self._hasher.hexdigest()

    def _hash(self) -> None:
        self._hasher.update(self._unhashed)
        self._unhashed.clear()

    def note_delivery(self, sender: PeerId, receiver: PeerId, message: Message, now: float) -> None:
        """Note a message at the moment of its arrival, in seconds of virtual time."""
        self.deliveries += 1
        pair = self._pairs.get((sender, receiver)) or self._name(sender, receiver)
        if message is not self._newest:  # the same to all, one after another
            self._newest, self._content = message, _describe(message)
        if now != self._now:
            self._now, self._stamp = now, b"%d " % round(now * 1_000_000)
        self._unhashed += self._stamp + pair + self._content
        if self._file is not None:
            one, other = map(int, pair.split())
            size = len(message.head) + len(message.payload or b"")
            content = blake3(message.head + bytes(message.payload or b"")).hexdigest(8)
            kind = NAMES.get(message.kind, message.kind)
            self._file.write(f"{now:10.4f} {one:>3} -> {other:<3} {kind} {size} {content}\n")

    def _name(self, sender: PeerId, receiver: PeerId) -> bytes:
        one, other = self._indices.get(sender, STRANGER), self._indices.get(receiver, STRANGER)
        self._pairs[sender, receiver] = b"%d %d " % (one, other)
        return self._pairs[sender, receiver]

    def note(self, index: int, text: str) -> None:
        """Note something that happened at a peer."""
        line = f"{true_time():10.4f} {index:>3}    {text}\n"
        self._unhashed += line.encode()
        self._hash()
        if self._file is not None:
            self._file.write(line)

    def note_event(self, index: int, event: Event) -> None:
        """Note what a peer told its observer: the fields in order, peers by their numbers, states by their seal."""
        names = self._fields.get(type(event)) or self._find_fields(event)
        told = [f"{name}={self._tell(getattr(event, name))}" for name in names]
        if isinstance(event, RoundDone):
            told.append(f"seal={event.result.seal_digest.hex()[:16]}")
        self.note(index, " ".join([type(event).__name__, *told]))

    def _find_fields(self, event: Event) -> tuple[str, ...]:
        """The fields that are noted of a kind of event: not what differs from machine to machine."""
        names = tuple(item.name for item in fields(event) if item.name not in {"result", "wall_s"})
        self._fields[type(event)] = names
        return names

    def _tell(self, value: object) -> str:
        match value:
            case Enum():
                return str(value.value)
            case bytes():
                index = self._indices.get(PeerId(value))
                return short(value) if index is None else str(index)
            case tuple():
                return "[" + ",".join(self._tell(item) for item in value) + "]"
            case State():
                return value.seal_digest.hex()[:16]
            case Assignment():
                return f"{self._tell(value.validator)}>{self._tell(value.target)}"
            case _:
                return str(value)


def _describe(message: Message) -> bytes:
    kind, head, payload = message
    content = b"" if payload is None else bytes(payload)
    return b"%d %d %d " % (kind, len(head), len(content)) + blake3(head).digest(16) + content
