"""What an attack came to: figures, and a verdict."""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.fuzz.delays import find_worst
from tests.fuzz.target import DELAY_SECONDS

MAX_GROWTH = 24 << 20
"""Bytes by which the target's memory may grow between a fifth of the attack and its end: buffers of 40 more links."""
MAX_PAUSE_SECONDS = 180.0
"""Longest time without a finished round, a few recoveries at Delta = 3 s and the settling of a complaint."""


@dataclass
class Summary:
    """What was thrown, how much of that was well-formed, and what became of the target."""

    thrown: Counter[str] = field(default_factory=Counter)
    chatter: Counter[str] = field(default_factory=Counter)
    statuses: list[Mapping[str, Any]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    features: int = 0
    exit_code: int | None = None

    @property
    def frames(self) -> int:
        """What malformed the target has read so far: messages and connections."""
        return self._count(self.statuses[-1]) if self.statuses else 0

    def _count(self, status: Mapping[str, Any]) -> int:
        return sum(self.count_malformed(status).values())

    def count_malformed(self, status: Mapping[str, Any]) -> Mapping[str, int]:
        """Return how much of what was read a correct peer would never send, by thrower, at least.

        Of connections: those that became no link. Of messages: without the share of them that was thrown well-formed,
        and of the attacker's without what it says as the member that it also is, 50 a round at most.
        """
        read = status["frames"]
        refused = read.get("connection", 0) - read.get("link", 0)
        said = {"stranger": read.get("stranger", 0), "member": read.get("member", 0) - 50 * (status["rounds"] + 1)}
        shares = {name: 1 - self.chatter[name] / max(1, self.thrown[name]) for name in said}
        return {"unknown": refused, **{name: max(0, int(said[name] * share)) for name, share in shares.items()}}

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
        return [
            s["rss"] for s, n in zip(self.statuses, counts, strict=True) if start <= n / max(1, self.frames) <= stop
        ]

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
        found += [find_worst(self.statuses).explain(DELAY_SECONDS)] if found and self.statuses else []
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
            "malformed": dict(self.count_malformed(self.statuses[-1])) if self.statuses else {},
            "read": self.statuses[-1]["frames"] if self.statuses else {},
            "thrown": dict(self.thrown),
            "well_formed": dict(self.chatter),
            "features": self.features,
            "swarms": (self.statuses[-1]["epoch"] + 1) if self.statuses else 0,
            "member_ends": dict(self.ends),
            "rounds": self.rounds,
            "longest_pause_s": round(self.longest_pause, 1),
            "slowest_round_s": round(self.statuses[-1]["slowest_round"], 1) if self.statuses else None,
            "delta_s": DELAY_SECONDS,
            "longest_delay_s": round(max((status["delay"] for status in self.statuses), default=0.0), 2),
            "longest_stall_s": round(max((status["stall"] for status in self.statuses), default=0.0), 2),
            "latest": asdict(find_worst(self.statuses)),
            "memory_mib": [round(min(memory) / 2**20, 1), round(max(memory) / 2**20, 1)],
            "memory_growth_mib": round(self.growth / 2**20, 2),
            "violations": self.violations,
        }
