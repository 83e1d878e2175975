"""How long a gradient takes each peer of a simulated run, drawn from its seed, and how long it says that it does."""

from dataclasses import replace
from random import Random

from btard.rules.config import RunConfig
from btard.sim.scenario import DELAY_S, Scenario

FASTEST_S, SLOWEST_S = 0.01 * DELAY_S, 12 * DELAY_S
FAST_S = 0.5 * DELAY_S
"""Up to this a gradient takes those who are fast, half of all: a scenario has both."""
MOST_S = RunConfig.max_gradient_s
"""What nobody may exceed in a simulated run: the default of a real one."""
NEWCOMERS_SHARE = 0.75
"""Of the time of the slowest honest member that stays, at most, a gradient takes whoever comes midway. A candidate
that is slower than all members is too late in every round, and lapses by right; it begins a little after them."""


def draw_gradients(plan: Scenario, dice: Random) -> Scenario:
    """Return the plan with the time that a gradient takes each peer, and what cheats say of theirs.

    Honest members promise what is true. How slow the slow ones are belongs to the scenario: some swarms are fast, and
    more are not, for what a long gradient shows a short one does not.
    """
    slowest = dice.triangular(FAST_S, SLOWEST_S, SLOWEST_S)
    times = {
        index: dice.uniform(FASTEST_S, FAST_S) if dice.random() < 0.5 else dice.uniform(FAST_S, slowest)
        for index in range(plan.population)
    }
    most = NEWCOMERS_SHARE * max(times[index] for index in _find_staying(plan))
    for index in sorted({*range(plan.peers, plan.population), *(absence.peer for absence in plan.absences)}):
        times[index] = min(times[index], most)
    return replace(
        plan,
        gradients={index: round(seconds, 3) for index, seconds in times.items()},
        promises={index: _draw_promise(dice, times[index]) for index in sorted(plan.adversaries)},
    )


def _find_staying(plan: Scenario) -> list[int]:
    """The honest members that never die, or if there are none, who are back: newcomers work beside them."""
    leaving = {absence.peer for absence in plan.absences}
    members = [index for index in plan.honest if index < plan.peers and index not in leaving]
    dying = {crash.peer for crash in plan.crashes}
    for_good = {crash.peer for crash in plan.crashes if crash.restart_s is None}
    return [index for index in members if index not in dying] or [index for index in members if index not in for_good]


def _draw_promise(dice: Random, seconds: float) -> float:
    """What is true, less than anything takes, or the most that is allowed: then all wait long for whoever is silent."""
    return round(dice.choice((seconds, seconds, 0.001, MOST_S)), 3)
