"""
The processes of a demo: started together, listened to through their JSON logs, ended without a trace.

Each child has a process group of its own, so that Ctrl-C reaches it once, through us; and a leash, so
that it ends even if we are killed.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import trio

from btard.cli.leash import GO

POLL_S = 0.1
"""How often the logs are looked at."""
GRACE_S = 30.0
"""How long a child may take to end after it was asked to: it writes a checkpoint and closes its ledger, and
sixteen of them do so at once on two cores."""

Event = dict[str, Any]
Tell = Callable[[int, Event], None]


@dataclass(frozen=True)
class Start:
    """What it takes to run one child: its command line, and the files it writes.

    ``is_due``, if any, tells whether a child that waits to be let go may begin.
    """

    command: Sequence[str]
    log: Path
    output: Path
    is_due: Callable[[], bool] | None = None


@dataclass
class Tail:
    """What was appended to a file of JSON lines since the last look; a line without its end waits."""

    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def read(self) -> list[Event]:
        """Return the new events; what is no JSON object is skipped."""
        if self._file is None:
            if not self.path.exists():
                return []
            self._file = self.path.open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [event for line in lines if (event := _parse(line)) is not None]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


@dataclass
class Child:
    """A running process and its log."""

    number: int
    process: trio.Process
    tail: Tail
    is_over: trio.Event = field(default_factory=trio.Event)

    def ask_to_end(self) -> None:
        """Interrupt it, as Ctrl-C would."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)


class Children:
    """Every process of one demo. ``tell`` is called with a child's number and each of its events, the last one
    being ``{"event": "exit", "code": ...}``.
    """

    def __init__(self, starts: Sequence[Start], tell: Tell) -> None:
        self._starts, self._tell = starts, tell
        self._children: list[Child] = []

    async def run(self) -> None:
        """Return when all have ended; if cancelled, they are asked to end, then made to."""
        async with trio.open_nursery() as nursery:
            try:
                for number, start in enumerate(self._starts):
                    child = Child(number, await _open(start), Tail(start.log))
                    self._children.append(child)
                    nursery.start_soon(self._watch, child)
                    if start.is_due is not None:
                        nursery.start_soon(_let_go, child, start.is_due)
                await self._wait_all()
            finally:
                with trio.CancelScope(shield=True):
                    await self.end()

    async def _wait_all(self) -> None:
        for child in self._children:
            await child.is_over.wait()

    async def _watch(self, child: Child) -> None:
        """Deliver one child's events until it has ended, also while the demo is being ended."""
        with trio.CancelScope(shield=True):
            try:
                while child.process.poll() is None:
                    self._deliver(child)
                    with trio.move_on_after(POLL_S):
                        await child.process.wait()
                self._deliver(child)
                self._tell(child.number, {"event": "exit", "code": child.process.returncode})
            finally:
                child.tail.close()
                child.is_over.set()

    def _deliver(self, child: Child) -> None:
        for event in child.tail.read():
            self._tell(child.number, event)

    async def end(self, numbers: Sequence[int] | None = None) -> None:
        """Ask children to end, all or some; return when they have, if need be by force."""
        chosen = [child for child in self._children if numbers is None or child.number in numbers]
        for child in chosen:
            child.ask_to_end()
        with trio.move_on_after(GRACE_S):
            for child in chosen:
                await child.process.wait()
        for child in chosen:
            if child.process.returncode is None:
                child.process.kill()
        for child in chosen:
            await child.process.wait()
            if child.process.stdin is not None:
                await child.process.stdin.aclose()


async def _let_go(child: Child, is_due: Callable[[], bool]) -> None:
    """Return once the child may begin, and knows it, or has ended."""
    while child.process.returncode is None and not is_due():  # noqa: ASYNC110  another process is awaited
        await trio.sleep(POLL_S)
    if child.process.stdin is not None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await child.process.stdin.send_all(GO)


async def _open(start: Start) -> trio.Process:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with start.output.open("wb") as output:
        return await trio.lowlevel.open_process(
            list(start.command),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def last_line(path: Path) -> str:
    """Return the last line that a child printed, empty if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
