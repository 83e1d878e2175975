"""What many runs covered, added up from their JSON: in total, by kind of fault, by kind of adversary."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from btard.attacks import ADVERSARIES, CANDIDATES
from btard.sim.law import Law
from btard.sim.scenario import Fault

TOLD = ("rounds_done", "attempts", "recoveries", "fallbacks", "halts", "crashes", "restarts", "returned", "comebacks")
"""What is added up over the seeds."""
FATES = ("peers", "acted", "banned", "removed", "stayed")
"""What is added up over the adversaries; who acted was banned, was removed, or stayed."""
WAYS = ("came", "admitted", "promoted", "lapsed", "banned", "removed", "promoted_idle")
"""What is added up over those who came midway; who was promoted idle had skipped work of rounds that counted."""
NONE = "none"
HONEST = "honest"


@dataclass
class Tally:
    """What happened in all seeds with something in common."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, counts: Counter[str]) -> None:
        """Take in one more seed."""
        self.seeds += 1
        self.counts += counts

    def show(self, name: str, columns: Iterable[str]) -> str:
        """One row of a table."""
        return f"{name:<24}{self.seeds:>8}" + "".join(f"{self.counts[column]:>14}" for column in columns)


def _empty(names: Iterable[str]) -> dict[str, Tally]:
    return {name: Tally() for name in (*names, NONE)}


@dataclass
class Summary:
    """The results so far. A peer that does ``a+b`` counts for a and for b, and once in the total."""

    total: Tally = field(default_factory=Tally)
    faults: dict[str, Tally] = field(default_factory=lambda: _empty(fault.value for fault in Fault))
    adversaries: dict[str, Tally] = field(default_factory=lambda: _empty(ADVERSARIES))
    strangers: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in (HONEST, *CANDIDATES)})
    law: Law = field(default_factory=Law)
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in the JSON of one report."""
        self.seeds.add(result["seed"])
        counts = Counter({name: result.get(name, 0) for name in TOLD})
        counts["bans"], counts["removals"] = len(result["bans"]), len(result["removals"])
        fates = {index: _follow(int(index), result) for index in result["scenario"]["adversaries"]}
        self.total.add(sum(fates.values(), counts))
        for fault in result["scenario"]["faults"] or [NONE]:
            self.faults.setdefault(fault, Tally()).add(counts)
        for kind, indices in _find_kinds(result["scenario"]["adversaries"]).items():
            self.adversaries.setdefault(kind, Tally()).add(sum((fates[index] for index in indices), counts))
        for kind, ways in _find_strangers(result).items():
            self.strangers.setdefault(kind, Tally()).add(sum(ways, Counter()))
        self.law.add(result)
        if result["violations"]:
            self.failures.append(result)

    def describe(self) -> list[str]:
        """The tables in lines of text; a row of zeros is a kind that never came up."""
        first = _show("fault", self.faults, self.total, (*TOLD, "bans", "removals"))
        second = _show("adversary", self.adversaries, self.total, ("rounds_done", *FATES, "recoveries", "fallbacks"))
        third = _show("stranger", self.strangers, None, WAYS)
        return [*first, "", *second, "", *third, "", self.law.describe()]


def _show(title: str, tallies: Mapping[str, Tally], total: Tally | None, columns: tuple[str, ...]) -> list[str]:
    head = f"{title:<24}{'seeds':>8}" + "".join(f"{name.removesuffix('_done'):>14}" for name in columns)
    rows = [tally.show(name, columns) for name, tally in sorted(tallies.items())]
    return [head, *rows] if total is None else [head, *rows, total.show("all together", columns)]


def _find_kinds(adversaries: Mapping[str, str]) -> Mapping[str, list[str]]:
    """Who is of each kind, by number; of kind ``none`` nobody, in a run without adversaries."""
    kinds: dict[str, list[str]] = {} if adversaries else {NONE: []}
    for index, names in adversaries.items():
        for kind in names.split("+"):
            kinds.setdefault(kind, []).append(index)
    return kinds


def _find_strangers(result: Mapping[str, Any]) -> Mapping[str, list[Counter[str]]]:
    """How far those who came midway have come, by what they are."""
    ways: dict[str, list[Counter[str]]] = {}
    gone = {name: {item["peer"] for item in result[name]} for name in ("bans", "removals")}
    for way in result.get("strangers", ()):
        fates = {name: way[name] is not None for name in ("admitted", "promoted", "lapsed")}
        fates |= {"banned": way["peer"] in gone["bans"], "removed": way["peer"] in gone["removals"]}
        is_idle = way["promoted"] is not None and way["skipped"] > 0
        ways.setdefault(way["kind"] or HONEST, []).append(Counter(came=1, promoted_idle=is_idle, **fates))
    return ways


def _follow(index: int, result: Mapping[str, Any]) -> Counter[str]:
    """What became of one adversary."""
    is_banned = index in {item["peer"] for item in result["bans"]}
    is_removed = not is_banned and index in {item["peer"] for item in result["removals"]}
    has_acted = str(index) in result["acts"]
    stayed = has_acted and not is_banned and not is_removed
    return Counter(peers=1, acted=has_acted, banned=is_banned, removed=is_removed, stayed=stayed)
