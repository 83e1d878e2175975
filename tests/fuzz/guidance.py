"""Guidance by coverage: of many inputs keep those that made the decoders do what none did before."""

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FrameType as PythonFrame
from typing import Any

from tests.fuzz.generate import HEADS, STRUCTS, Generator

from btard.errors import RemoteProtocolError
from btard.identity import Identity
from btard.net.frames import decode_bulk_start, decode_header
from btard.net.requests import decode_answer, decode_request
from btard.rules.messages import Phase, Stage
from btard.wire import decode, decode_seal, open_message

RUN_ID = b"r" * 32
ALICE = Identity(b"a" * 32)


Decoder = Callable[[bytes], object]
WIRE: tuple[Decoder, ...] = (
    lambda data: open_message(RUN_ID, data),
    lambda data: decode_header(data[:4].ljust(4, b"\0")),
    decode_seal,
    decode_bulk_start,
    decode_request,
    decode_answer,
)


def find_decoder(generator: Generator, number: int) -> tuple[Decoder, bytes]:
    """Return something that makes values of a peer's bytes, and bytes that might suit it."""
    chance, author = generator.chance, ALICE
    wanted = STRUCTS[number % len(STRUCTS)]
    match number % 4:
        case 0:
            stage = Stage(1, 0, chance.choice(list(Phase)))
            return WIRE[0], generator.signed(author, RUN_ID, bytes(32), stage)
        case 1:
            return chance.choice(WIRE), generator.head(chance.choice(list(HEADS)))
        case 2:
            return WIRE[0], generator.resigned(author, generator.recorded())
        case _:
            return (lambda data: decode(data, wanted)), generator.struct(wanted)


@contextmanager
def watched_lines(found: set[Hashable]) -> Iterator[None]:
    """Add to ``found`` every (file, line, next line) of btard that runs in the body."""

    def trace(frame: PythonFrame, _event: str, _argument: Any) -> Any:
        if "/btard/" not in frame.f_code.co_filename:
            return None
        previous = 0

        def trace_line(frame: PythonFrame, event: str, _argument: Any) -> Any:
            nonlocal previous
            if event == "line":
                found.add((frame.f_code.co_filename, previous, frame.f_lineno))
                previous = frame.f_lineno
            return trace_line

        return trace_line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def observe(decoder: Decoder, data: bytes) -> set[Hashable]:
    """Return what a decoder did with some bytes: the lines that ran, and what it complains about, and where.

    Anything but a value or RemoteProtocolError is a finding and passes through.
    """
    found: set[Hashable] = set()
    with watched_lines(found):
        try:
            found.add(type(decoder(data)).__name__)
        except RemoteProtocolError as error:
            found.add(f"{error}: {error.__context__}"[:120])
    return found


def grow_corpus(seed: int, inputs: int, most: int = 400) -> tuple[list[bytes], int]:
    """Return inputs that each did something new, and how many different things they did in all."""
    generator = Generator(seed)
    reached: set[Hashable] = set()
    corpus: list[bytes] = []
    for number in range(inputs):
        decoder, data = find_decoder(generator, number)
        if corpus and generator.chance.random() < 0.5:
            data = generator.mutate(generator.recorded())
        seen = observe(decoder, data)
        if not seen <= reached and len(corpus) < most:
            reached |= seen
            corpus.append(data)
            generator.record(data, most)
    return corpus, len(reached)
