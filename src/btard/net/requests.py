"""Open requests to one peer: every request has a number, every number gets one answer or none."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from btard.errors import RemoteProtocolError
from btard.net.link import Message

AnswerSink = Callable[[bytes, int], memoryview | None]
"""Given (body, size) of an answer with a payload, returns ``size`` writable bytes, or None to refuse it."""

_REQUEST = struct.Struct(">IB")
_ANSWER = struct.Struct(">I")
REQUEST_OVERHEAD = _REQUEST.size
SCATTER = 2_654_435_769
"""2^32 over the golden ratio: multiples of it, modulo 2^32, lie far apart."""
ANSWER_OVERHEAD = _ANSWER.size


def encode_request(number: int, kind: int, body: bytes) -> bytes:
    """Return the head of a request message."""
    return _REQUEST.pack(number, kind) + body


def decode_request(head: bytes) -> tuple[int, int, bytes]:
    """Return (number, kind, body) of a request message.

    Raises:
        RemoteProtocolError: it is too short.
    """
    if len(head) < _REQUEST.size:
        raise RemoteProtocolError("a request is too short")
    number, kind = _REQUEST.unpack_from(head)
    return number, kind, head[_REQUEST.size :]


def encode_answer(number: int, body: bytes) -> bytes:
    """Return the head of an answer message."""
    return _ANSWER.pack(number) + body


def decode_answer(head: bytes) -> tuple[int, bytes]:
    """Return (number, body) of an answer message.

    Raises:
        RemoteProtocolError: it is too short.
    """
    if len(head) < _ANSWER.size:
        raise RemoteProtocolError("an answer is too short")
    return _ANSWER.unpack_from(head)[0], head[_ANSWER.size :]


@dataclass(eq=False)
class OpenRequest:
    """A request that waits; once ``settled``, it has its answer, or it was refused, or the link ended first."""

    number: int
    kind: int
    sink: AnswerSink | None
    target: memoryview | None = None
    is_refused: bool = False
    answer: Message | None = None
    settled: trio.Event = field(default_factory=trio.Event)


class OpenRequests:
    """The requests to one peer that have no answer yet, by number."""

    def __init__(self) -> None:
        self._open: dict[int, OpenRequest] = {}
        self._next_number = 0

    def scatter(self, serial: int) -> None:
        """Count from elsewhere for every first link: what an earlier process asked may be answered on this one yet."""
        self._next_number = serial * SCATTER % (1 << 32)

    def begin(self, kind: int, sink: AnswerSink | None) -> OpenRequest:
        """Return a new request; ``end`` must follow."""
        request = OpenRequest(self._next_number, kind, sink)
        self._open[request.number] = request
        self._next_number = (self._next_number + 1) % (1 << 32)
        return request

    def end(self, request: OpenRequest) -> None:
        """Forget a request; an answer that comes later is ignored."""
        self._open.pop(request.number, None)

    def choose_target(self, head: bytes, size: int) -> memoryview | None:
        """Return the memory for the payload of an answer, None if nobody waits for it.

        It is given once: a peer with two links could else write there, on one, what its owner has checked already.

        Raises:
            RemoteProtocolError: the request wanted no payload.
        """
        number, body = decode_answer(head)
        request = self._open.get(number)
        if request is None or request.target is not None:
            return None
        if request.sink is None:
            raise RemoteProtocolError("an answer brings a payload that was not asked for")
        request.target = request.sink(body, size)
        if request.target is None:
            request.is_refused = True
            self.end(request)
            request.settled.set()
        return request.target

    def settle(self, message: Message) -> None:
        """Hand a complete answer to whoever waits for it.

        Raises:
            RemoteProtocolError: the answer is too short.
        """
        number, body = decode_answer(message.head)
        request = self._open.pop(number, None)
        if request is not None:
            request.answer = Message(request.kind, body, message.payload)
            request.settled.set()

    def fail_all(self) -> None:
        """Release everybody who waits: no answer will come."""
        for request in self._open.values():
            request.settled.set()
        self._open.clear()
