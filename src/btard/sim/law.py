"""
Attackers of gradients, many runs together: were they banned as often as the law says (design section 3)?

In one run a lucky attacker proves nothing. Over many, the number of bans has the mean and nearly the
variance of the sum of the chances that the attackers were exposed to, whenever each of them was
caught: whoever is gone is exposed no longer, and what is left out has the mean zero. ``score`` is the
distance in standard deviations.

The chance counts all rounds since the first act, also those in which the attacker validates and
contributes no gradient. Runs without synchrony and peers of several kinds are left out, for there other
causes end an attacker; and runs that strangers join, for there the roster is not known from who left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from btard.rules.config import RunConfig
from btard.sim.checkers import Accountability

LEAST_SCORE = -4.0
"""Below, bans are too rare: in one campaign out of thirty thousand by chance, if it holds some tens of bans."""
ENOUGH = 10.0
"""Expected bans below which the score says nothing."""


def compute_chance(size: int, bad: int) -> float:
    """The chance that an honest peer recomputes the gradient of a certain one in a round: m/(n-1)·(n-b)/n."""
    return RunConfig.validators / (size - 1) * (size - bad) / size if size > 1 else 0.0


@dataclass
class Law:
    """What was observed and expected of all attackers of gradients so far."""

    attackers: int = 0
    rounds: int = 0
    bans: int = 0
    expected: float = 0.0
    variance: float = 0.0

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in the JSON of one report."""
        scenario = result["scenario"]
        if scenario.get("entrance"):
            return
        for index, kind in scenario["adversaries"].items():
            if kind in Accountability.BY_CHANCE and scenario["is_synchronous"] and index in result["acts"]:
                self._follow(int(index), result)

    def _follow(self, index: int, result: Mapping[str, Any]) -> None:
        banned = {item["peer"]: item["round"] for item in result["bans"]}
        gone = {item["peer"]: item["round"] for item in result["removals"]} | banned
        end = gone.get(index, result["rounds_done"] + 1)  # a verdict on round t comes with the COMMIT of t+1
        rounds = range(result["acts"][str(index)], end)
        for number in rounds:
            present = [peer for peer in range(result["scenario"]["peers"]) if gone.get(peer, math.inf) > number]
            bad = sum(str(peer) in result["scenario"]["adversaries"] for peer in present)
            chance = compute_chance(len(present), bad)
            self.expected += chance
            self.variance += chance * (1 - chance)
        self.attackers += 1
        self.rounds += len(rounds)
        self.bans += index in banned

    @property
    def score(self) -> float:
        """By how many standard deviations there were more bans than expected."""
        return (self.bans - self.expected) / math.sqrt(self.variance) if self.variance else 0.0

    @property
    def is_kept(self) -> bool:
        """Whether there were as many bans as the law promises, or too few chances to tell."""
        return self.expected < ENOUGH or self.score > LEAST_SCORE

    def describe(self) -> str:
        """Both in a line for people."""
        told = f"{self.attackers} attackers of gradients in {self.rounds} rounds under synchrony: {self.bans} bans"
        verdict = "as the law says" if self.is_kept else "too few bans"
        if self.expected < ENOUGH:
            verdict = "too little to judge"
        return f"{told}, {self.expected:.1f} expected, {self.score:+.1f} standard deviations: {verdict}"
