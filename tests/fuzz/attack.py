"""One attack: a live swarm in another process, throwers of three kinds, and what became of the swarm."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import trio
from tests.fuzz.generate import Generator
from tests.fuzz.guidance import grow_corpus
from tests.fuzz.member import Member
from tests.fuzz.strangers import Dialler, Stranger, Unknown
from tests.fuzz.summary import Summary
from tests.fuzz.target import VICTIM, make_config

from btard.identity import Identity
from btard.net import Terms
from btard.net.handshake import Credentials

NAMES = ("unknown", "stranger", "member")
STRANGERS = 2
UNKNOWNS = 1
"""Throwers without a place in the run; few, so that most of the attack is the member's, which reaches the most code."""
SUSPECT = ("Traceback", "Exception ignored", "never retrieved", "never awaited", "ResourceWarning")


class Attack:
    """Throws at a live peer until it has read so many frames."""

    def __init__(
        self, frames: int, seed: int, guided: int, progress: Callable[[Summary], None], seconds: float = math.inf
    ) -> None:
        self.summary = Summary()
        self._wanted, self._seed, self._progress, self._seconds = frames, seed, progress, seconds
        self._corpus, self.summary.features = grow_corpus(seed, guided)
        self._ports: list[int] = []
        self._changed = trio.Event()

    async def run(self) -> Summary:
        """Start the target, attack it, and return what became of it."""
        with tempfile.TemporaryDirectory(prefix="btard-fuzz-") as directory:
            async with start_target(Path(directory)) as target, trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, target, nursery.cancel_scope)
                await self._wait_for_ports()
                for number in range(UNKNOWNS + STRANGERS):
                    nursery.start_soon(self._throw, number)
                nursery.start_soon(self._throw_as_members, target, Path(directory))
            self.summary.exit_code = target.returncode
            text = (Path(directory) / "stderr").read_text(errors="replace")
            self.summary.tracebacks = find_suspicious(text)
            if self.summary.tracebacks:
                sys.stderr.write(text[-20_000:])
        return self.summary

    async def _watch(self, target: trio.Process, scope: trio.CancelScope) -> None:
        """Read what the target says until it has read enough, or says nothing more."""
        assert target.stdout is not None
        buffer = b""
        async for data in target.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._take_line(json.loads(line))
            if self._is_over():
                break
        scope.cancel()

    def _is_over(self) -> bool:
        """Whether enough was read, each kind of thrower having had its turn, or time is over, or something is wrong."""
        has_enough = self.summary.frames >= self._wanted and len(self.summary.thrown) == len(NAMES)
        is_wrong = bool(self.summary.statuses) and bool(self.summary.statuses[-1]["violations"])
        return has_enough or is_wrong or self.summary.seconds >= self._seconds

    def _take_line(self, line: Mapping[str, Any]) -> None:
        if "ports" in line:
            self._ports = line["ports"]
            self._changed.set()
            self._changed = trio.Event()
        elif self._ports:
            self.summary.statuses.append(line)
            self._progress(self.summary)

    async def _wait_for_ports(self) -> None:
        while not self._ports:
            await self._changed.wait()

    async def _throw(self, number: int) -> None:
        """Throw without a place in the run, at the victim of whatever swarm there is."""
        generator, name = Generator(1000 * self._seed + number, self._corpus), NAMES[number >= UNKNOWNS]
        while True:
            await self._wait_for_ports()
            epoch = self._epoch
            with closing(self._make_thrower(name, generator)) as thrower:
                while epoch == self._epoch:
                    thrown, chatter = thrower.thrown, thrower.chatter
                    await thrower.throw()
                    self.summary.thrown[name] += thrower.thrown - thrown
                    self.summary.chatter[name] += thrower.chatter - chatter
                    await trio.lowlevel.checkpoint()

    def _make_thrower(self, name: str, generator: Generator) -> Unknown | Stranger:
        dialler, terms = Dialler(generator, self._ports[VICTIM]), Terms(make_config(self._epoch).run_id)
        credentials = [Credentials(Identity.generate(), terms) for _ in range(8)]
        return (Unknown if name == NAMES[0] else Stranger)(generator, dialler, credentials)

    @property
    def _epoch(self) -> int:
        return sum(self.summary.ends.values())

    async def _throw_as_members(self, target: trio.Process, directory: Path) -> None:
        assert target.stdin is not None
        while True:
            generator = Generator(1000 * self._seed + 999 + self._epoch, self._corpus)
            member = Member(generator, self._epoch, self._ports, directory, self._count_member)
            await member.run()
            self._ports = []
            self.summary.ends[member.end] += 1
            await target.stdin.send_all(b"n")
            await self._wait_for_ports()

    def _count_member(self, *, is_chatter: bool) -> None:
        self.summary.thrown[NAMES[2]] += 1
        self.summary.chatter[NAMES[2]] += is_chatter


def find_suspicious(text: str) -> list[str]:
    """Return the lines of standard error that tell of a mistake, and behind them its last words: the exception."""
    lines = text.splitlines()
    found = [line for line in lines if any(word in line for word in SUSPECT)]
    words = [line.strip(" |+-") for line in lines]
    return [*found, *[line for line in words if line][-1:]] if found else []


@asynccontextmanager
async def start_target(directory: Path) -> AsyncIterator[trio.Process]:
    """Yield the target's process; it has ended afterwards."""
    with (directory / "stderr").open("wb") as errors:
        command = [sys.executable, "-m", "tests.fuzz.target"]
        target = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield target
            assert target.stdin is not None
            await target.stdin.aclose()
            with trio.move_on_after(20):
                await target.wait()
        finally:
            if target.returncode is None:
                target.kill()
            with trio.CancelScope(shield=True):
                await target.wait()
