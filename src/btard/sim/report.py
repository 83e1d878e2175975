"""What came of a scenario, as a value, as JSON and in lines for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from btard.identity import PeerId
from btard.rules.evidence import DepartureKind
from btard.sim.checkers import Violation
from btard.sim.newcomers import Way
from btard.sim.scenario import Scenario
from btard.swarm.events import Departed


@dataclass(frozen=True)
class Report:
    """What came of a scenario; ``acts`` tells in which round each adversary first cheated, ``index`` numbers the peers.

    ``counts`` has what happened how often: rounds' attempts, recoveries, halts, crashes, restarts, deliveries.
    ``wall_s`` is real time in seconds, of which the audits of the honest peers' ledgers took ``audit_s`` at the end.
    """

    scenario: Scenario
    rounds_done: int
    trace_digest: str
    departures: tuple[Departed, ...]
    violations: tuple[Violation, ...]
    counts: Mapping[str, int]
    acts: Mapping[int, int]
    index: Mapping[PeerId, int]
    ways: Mapping[int, Way]
    virtual_s: float
    wall_s: float
    audit_s: float

    @property
    def is_sound(self) -> bool:
        """Whether every invariant holds."""
        return not self.violations

    def find_leavers(self, kind: DepartureKind) -> dict[int, Departed]:
        """Who left in that way, by number."""
        return {self.index[item.peer]: item for item in self.departures if item.kind is kind}

    def as_json(self) -> dict[str, Any]:
        """The report as ``--json`` writes it."""
        return {
            "seed": self.scenario.seed,
            "scenario": self.scenario.as_json(),
            "rounds_done": self.rounds_done,
            "trace_digest": self.trace_digest,
            "bans": self._list(DepartureKind.BAN),
            "removals": self._list(DepartureKind.REMOVAL),
            "strangers": [self._follow(index, way) for index, way in sorted(self.ways.items())],
            "violations": [
                {"invariant": item.invariant.value, "round": item.round, "detail": item.detail}
                for item in self.violations
            ],
            "virtual_s": round(self.virtual_s, 3),
            "wall_s": round(self.wall_s, 3),
            "audit_s": round(self.audit_s, 3),
            "acts": {str(index): acted for index, acted in sorted(self.acts.items())},
            **self.counts,
        }

    def _follow(self, index: int, way: Way) -> dict[str, Any]:
        """What became of a stranger, or of a member that came back as one; rounds, None for what did not happen."""
        kind = self.scenario.adversaries.get(index, "")
        fates = {"arrived": way.arrived, "admitted": way.admitted, "promoted": way.promoted, "lapsed": way.lapsed}
        odds = {"counted": len(way.counted), "skipped": way.skipped, "waits": way.waits}
        return {"peer": index, "kind": kind, **fates, **odds}

    def _list(self, kind: DepartureKind) -> list[dict[str, Any]]:
        bad = self.scenario.adversaries
        return [
            {"peer": index, "byzantine": index in bad, "round": item.round, "cause": item.cause.value}
            for index, item in self.find_leavers(kind).items()
        ]

    def describe(self) -> list[str]:
        """The verdict in lines for people."""
        counted = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        played_s = self.wall_s - self.audit_s
        speed = f"{played_s:.1f} real seconds, {self.rounds_done / played_s:.1f} a second"
        lines = [
            f"{self.rounds_done} rounds in {self.virtual_s:.1f} virtual and {speed}; {counted}",
            f"{self.audit_s:.1f} s to audit the honest peers' ledgers",
            *(self._tell(item) for item in self.departures),
            *(self._tell_way(index, way) for index, way in sorted(self.ways.items())),
            f"trace {self.trace_digest}",
        ]
        wrong = [f"violated: {item.invariant.value}, round {item.round}: {item.detail}" for item in self.violations]
        return lines + (wrong or ["all five invariants hold"])

    def _tell_way(self, index: int, way: Way) -> str:
        came = "stranger" if index >= self.scenario.peers else "member"
        steps = (("admitted", way.admitted), ("promoted", way.promoted), ("lapsed", way.lapsed))
        told = ", ".join(f"{name} in {number}" for name, number in steps if number is not None) or "never admitted"
        who = self.scenario.adversaries.get(index, "honest")
        return f"round {way.arrived}: {came} {index} ({who}) comes: {told}"

    def _tell(self, item: Departed) -> str:
        index = self.index[item.peer]
        who = self.scenario.adversaries.get(index, "honest")
        return f"round {item.round}: peer {index} ({who}) left by {item.kind.value}: {item.cause.value}"
