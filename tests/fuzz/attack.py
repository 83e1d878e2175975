"""One attack: a live swarm in another process, throwers of three kinds, and what became of the swarm."""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from tests.fuzz.generate import Generator
from tests.fuzz.guidance import grow_corpus
from tests.fuzz.member import Member
from tests.fuzz.strangers import Dialler, Stranger, Unknown
from tests.fuzz.target import VICTIM, make_config

from btard.identity import Identity
from btard.net import Terms
from btard.net.handshake import Credentials

NAMES = ("unknown", "stranger", "member")
STRANGERS = 12
UNKNOWNS = 6
MAX_GROWTH = 24 << 20
"""Bytes by which the target's memory may grow between a fifth of the attack and its end: buffers of 40 more links."""
MAX_PAUSE_SECONDS = 180.0
"""Longest time without a finished round, a few recoveries at Delta = 3 s and the settling of a complaint."""
SUSPECT = ("Traceback", "Exception ignored", "never retrieved", "never awaited", "ResourceWarning")


@dataclass
class Summary:
    """What was thrown, and what became of the target."""

    thrown: Counter[str] = field(default_factory=Counter)
    statuses: list[Mapping[str, Any]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    features: int = 0
    exit_code: int | None = None

    @property
    def frames(self) -> int:
        """What of the attack the target has read so far: frames and connections."""
        return self._count(self.statuses[-1]) if self.statuses else 0

    def _count(self, status: Mapping[str, Any]) -> int:
        """Count without what the attacker says as the member that it also is: 50 frames a round at most."""
        read = status["frames"]
        said = read.get("member", 0) - 50 * (status["rounds"] + 1)
        return int(read.get("connection", 0) + read.get("stranger", 0) + max(0, said))

    @property
    def seconds(self) -> float:
        """How long the attack took."""
        return self.statuses[-1]["time"] - self.statuses[0]["time"] if self.statuses else 0.0

    @property
    def growth(self) -> int:
        """Bytes by which memory grew from 20 to 30 percent of the frames to their last tenth; medians of both."""
        early = self._memory(0.2, 0.3)
        late = self._memory(0.9, 1.0)
        return int(statistics.median(late) - statistics.median(early)) if early and late else 0

    def _memory(self, start: float, stop: float) -> list[int]:
        counts = [self._count(status) for status in self.statuses]
        return [s["rss"] for s, n in zip(self.statuses, counts, strict=True) if start <= n / self.frames <= stop]

    @property
    def rounds(self) -> int:
        """Rounds that the honest peers finished during the attack."""
        return self.statuses[-1]["rounds"] - self.statuses[0]["rounds"] if self.statuses else 0

    @property
    def longest_pause(self) -> float:
        """The longest time in seconds in which no round was finished."""
        longest, since = 0.0, self.statuses[0] if self.statuses else {}
        for status in self.statuses:
            if (status["rounds"], status["epoch"]) != (since["rounds"], since["epoch"]):
                since = status
            longest = max(longest, status["time"] - since["time"])
        return longest

    @property
    def violations(self) -> list[str]:
        """What must not have happened, in words."""
        found = list(self.statuses[-1]["violations"]) if self.statuses else ["the target never answered"]
        found += [f"standard error: {line}" for line in self.tracebacks]
        if self.growth > MAX_GROWTH:
            found.append(f"memory grew by {self.growth >> 20} MiB")
        if self.longest_pause > MAX_PAUSE_SECONDS:
            found.append(f"no round was finished for {self.longest_pause:.0f} s")
        if self.exit_code not in {None, 0}:
            found.append(f"the target ended with {self.exit_code}")
        return found

    def as_json(self) -> dict[str, object]:
        """Return all figures."""
        memory = [status["rss"] for status in self.statuses] or [0]
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 1),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9)),
            "thrown": dict(self.thrown),
            "read": self.statuses[-1]["frames"] if self.statuses else {},
            "features": self.features,
            "swarms": (self.statuses[-1]["epoch"] + 1) if self.statuses else 0,
            "member_ends": dict(self.ends),
            "rounds": self.rounds,
            "longest_pause_s": round(self.longest_pause, 1),
            "longest_stall_s": round(self.statuses[-1]["stall"], 2) if self.statuses else None,
            "memory_mib": [round(min(memory) / 2**20, 1), round(max(memory) / 2**20, 1)],
            "memory_growth_mib": round(self.growth / 2**20, 2),
            "violations": self.violations,
        }


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
            self.summary.tracebacks = [line for line in text.splitlines() if any(word in line for word in SUSPECT)]
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
                    await thrower.throw()
                    self.summary.thrown[name] += 1
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
            member = Member(generator, self._epoch, self._ports, directory)
            await member.run(self._count_member)
            self._ports = []
            self.summary.ends[member.end] += 1
            await target.stdin.send_all(b"n")
            await self._wait_for_ports()

    def _count_member(self) -> None:
        self.summary.thrown[NAMES[2]] += 1


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
