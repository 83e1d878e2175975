"""Who comes to a simulated run midway, drawn from its seed: strangers, honest or not, and members that come back."""

from dataclasses import replace
from random import Random

from btard.attacks import ADVERSARIES, CANDIDATES
from btard.sim.scenario import DELAY_S, Absence, Arrival, Crash, Entrance, Fault, Moment, Scenario

MOST_HONEST, MOST_CHEATS = 4, 3
UNLIKELY = (
    "idle-candidate",
    "half-idle-candidate",
    "lying-sample",
    "different-sample",
    "two-faced-candidate",
    "false-ticket",
    "foreign-ticket",
)
"""What is drawn where the swarm bears no Byzantine member more: these become one by luck at most."""
CRASHES = {Fault.CRASH: (False, False), Fault.RESTART: (False, True), Fault.POWER: (True, True)}
"""Kinds of crashes: whether the machine loses power, and whether the peer comes back."""


def draw_strangers(plan: Scenario, dice: Random, *, may_cheat: bool) -> Scenario:
    """Return the plan with what strangers find, who comes and when, and which members leave to come back.

    Cheats that could become members are no more than leave the honest a majority without any honest stranger.
    """
    entrance = Entrance(dice.randint(8, 12), dice.choice((0.5, 0.75, 1.0)), dice.choice((4, 8)))
    honest, cheats = dice.randint(0, MOST_HONEST), dice.randint(0, MOST_CHEATS) if may_cheat else 0
    last = max(1, plan.rounds // 2)
    arrivals = tuple(sorted((Arrival(dice.randint(1, last)) for _ in range(honest + cheats)), key=lambda a: a.round))
    numbers = range(plan.peers, plan.peers + len(arrivals))
    bad = sorted(dice.sample(numbers, cheats))
    kinds = {index: _draw_kind(dice, is_member=place < plan.spare) for place, index in enumerate(bad)}
    adversaries = {**plan.adversaries, **kinds}
    plan = replace(plan, entrance=entrance, arrivals=arrivals)
    absences = _draw_absences(replace(plan, adversaries=adversaries), dice)
    return replace(
        plan,
        adversaries=adversaries,
        absences=absences,
        comeback_s=round(dice.uniform(0, 10) * DELAY_S, 2) if dice.random() < 0.5 else None,
    )


def _draw_kind(dice: Random, *, is_member: bool) -> str:
    """One of the kinds that only strangers are, or a cheat that waits until it is a member."""
    if not is_member:
        return dice.choice(UNLIKELY)
    return dice.choice(tuple(ADVERSARIES) if dice.random() < 0.3 else tuple(CANDIDATES))


def _draw_absences(plan: Scenario, dice: Random) -> tuple[Absence, ...]:
    members = [index for index in plan.honest if index < plan.peers]
    leaving = dice.sample(members, min(plan.spare, dice.randint(0, 2)))
    last = max(1, plan.rounds // 2)
    return tuple(Absence(index, dice.randint(1, last), round(dice.uniform(0, 15) * DELAY_S, 2)) for index in leaving)


def draw_strangers_crashes(plan: Scenario, dice: Random) -> tuple[Crash, ...]:
    """Return how honest strangers die: on their way to the run, on probation, at their entry, or as members.

    As members no more of them than the swarm bears, beside its Byzantine ones.
    """
    kinds = [fault for fault in CRASHES if fault in plan.faults]
    if plan.entrance is None or not kinds:
        return ()
    victims = [index for index in plan.honest if index >= plan.peers and dice.random() < 0.5]
    early, late = plan.entrance.probation - 2, plan.entrance.probation + 4
    return tuple(
        _draw_crash(dice, victim, dice.choice(kinds), late if place < plan.spare else early)
        for place, victim in enumerate(victims)
    )


def _draw_crash(dice: Random, victim: int, fault: Fault, last: int) -> Crash:
    loses_power, comes_back = CRASHES[fault]
    return Crash(
        victim,
        dice.randint(0, last),
        dice.choice(tuple(Moment)),
        dice.choice((1, 2, 3, 5, 8, 40, 200)),
        round(dice.uniform(0.05, 6) * DELAY_S, 3) if comes_back else None,
        loses_power=loses_power,
    )
