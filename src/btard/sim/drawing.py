"""Scenarios are drawn here: from a seed and what the command line fixes."""

import shlex
from dataclasses import asdict, dataclass, replace
from itertools import chain
from random import Random

from btard.attacks import ADVERSARIES, SIEGES
from btard.errors import ConfigError
from btard.sim.chance import open_stream
from btard.sim.drawing_gradients import draw_gradients
from btard.sim.drawing_strangers import draw_strangers, draw_strangers_crashes
from btard.sim.scenario import (
    BREAKS_SYNCHRONY,
    DELAY_S,
    Crash,
    Fault,
    Freeze,
    Moment,
    Partition,
    Reset,
    Scenario,
    Siege,
    Spike,
    Stall,
    Weather,
)

SMALLEST, LARGEST = 4, 24
TASKS = ("stub", "linear")
WHIMSICAL = 0.2
"""The share of scenarios in which all adversaries have whims."""


def parse_faults(text: str) -> tuple[Fault, ...] | None:
    """Return the faults that a comma-separated list names; ``all`` gives None: the seed chooses.

    Raises:
        ConfigError: an unknown name.
    """
    if text == "all":
        return None
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in {fault.value for fault in Fault}]
    if unknown:
        known = ", ".join(fault.value for fault in Fault)
        raise ConfigError(f"unknown fault {unknown[0]!r}; known are all, none, {known}")
    return tuple(fault for fault in Fault if fault.value in names)


@dataclass(frozen=True)
class Order:
    """What is fixed about the scenarios of any seed; what is None, and with ``all`` the faults, the seed draws."""

    peers: int | None = None
    byzantine: int | None = None
    rounds: int = 50
    faults: str = "all"
    attack: str | None = None
    task: str | None = None

    def draw(self, seed: int) -> Scenario:
        """Return the scenario of a seed.

        Raises:
            ConfigError: half of the peers or more Byzantine, an unknown attack, fault or task.
        """
        dice = open_stream(seed, "scenario")
        size = dice.randint(SMALLEST, LARGEST) if self.peers is None else self.peers
        most = (size + 1) // 2 - 1
        count = dice.randint(0, most) if self.byzantine is None else self.byzantine
        if not 0 <= count <= most:
            raise ConfigError(f"of {size} peers at most {most} can be Byzantine, not {count}")
        task = self.task or dice.choice(TASKS)
        if task not in TASKS:
            raise ConfigError(f"unknown task {task!r}; known are {', '.join(TASKS)}")
        attack_from = dice.randint(1, max(1, self.rounds // 3))
        adversaries = _draw_adversaries(open_stream(seed, "adversaries"), size, count, self.attack)
        faults = parse_faults(self.faults)
        active = faults if faults is not None else _draw_kinds(open_stream(seed, "kinds of faults"))
        plan = Scenario(seed, size, self.rounds, task, adversaries, attack_from, active)
        if Fault.STRANGERS in active:
            plan = draw_strangers(plan, open_stream(seed, Fault.STRANGERS), may_cheat=self.byzantine != 0)
        return _draw_faults(plan)

    def command(self, seed: int) -> str:
        """Return the command line that plays the scenario of a seed."""
        given = [(f"--{name}", str(value)) for name, value in asdict(self).items() if value is not None]
        return shlex.join(["btard-peer", "simulate", "--seed", str(seed), *chain(*given)])


def _draw_adversaries(dice: Random, size: int, count: int, attack: str | None) -> dict[int, str]:
    """Some places and what each of them does: one or two kinds, or what was ordered, in turn; or all have whims."""
    ordered = [] if attack is None else attack.split(",")
    for kind in (kind for order in ordered for kind in order.split("+")):
        if kind not in ADVERSARIES:
            raise ConfigError(f"unknown attack {kind!r}; known are {', '.join(ADVERSARIES)}")
    if not ordered and dice.random() < WHIMSICAL:
        ordered = ["whims"]
    drawn = {}
    for place, index in enumerate(sorted(dice.sample(range(size), count))):
        kinds = sorted(dice.sample(tuple(ADVERSARIES), dice.choice((1, 1, 2))))
        drawn[index] = ordered[place % len(ordered)] if ordered else "+".join(kinds)
    return drawn


def _draw_kinds(dice: Random) -> tuple[Fault, ...]:
    """Each kind is active in one half of all scenarios, those that break synchrony in one of five together.

    The newest kind is drawn last: seeds without it have the scenarios that they had before there was one.
    """
    active = [fault for fault in Fault if fault is not Fault.COMPUTE and dice.random() < 0.5]
    if dice.random() < 0.8:
        active = [fault for fault in active if fault not in BREAKS_SYNCHRONY]
    return (*active, Fault.COMPUTE) if dice.random() < 0.5 else tuple(active)


def _draw_faults(plan: Scenario) -> Scenario:
    """Return the plan with every active fault drawn, each from a stream of its own."""
    streams = {fault: open_stream(plan.seed, fault.value) for fault in plan.faults}
    drawn = {
        "weather": _draw_weather(streams),
        "disks": _spread(plan, streams.get(Fault.DISK), 0.01, 0.1),
        "clocks": _spread(plan, streams.get(Fault.SKEW), -0.002, 0.002),
        "stalls": _draw_stalls(plan, streams.get(Fault.STALL)),
        "crashes": _draw_crashes(plan, streams) + _draw_blackout(plan, streams.get(Fault.BLACKOUT)),
        "resets": _draw_resets(plan, streams.get(Fault.RESET)),
        "spikes": _draw_spikes(plan, streams.get(Fault.SPIKE)),
        "partitions": _draw_partitions(plan, streams.get(Fault.PARTITION)),
        "freezes": _draw_freezes(plan, streams.get(Fault.FREEZE)),
        "sieges": _draw_sieges(plan, streams.get(Fault.SIEGE)),
    }
    plan = replace(plan, **drawn)  # type: ignore[arg-type]
    return draw_gradients(plan, streams[Fault.COMPUTE]) if Fault.COMPUTE in streams else plan


def _draw_weather(streams: dict[Fault, Random]) -> Weather:
    bounds = {
        Fault.LATENCY: ("latency_s", 0.01, 0.25 * DELAY_S),
        Fault.JITTER: ("jitter_s", 0.01, 0.15 * DELAY_S),
        Fault.LOSS: ("loss", 0.001, 0.03),
        Fault.REORDER: ("reorder", 0.01, 0.1),
        Fault.DUPLICATE: ("duplicate", 0.01, 0.2),
        Fault.BANDWIDTH: ("bandwidth", 1e6, 2e7),
    }
    return Weather(
        **{
            name: round(streams[fault].uniform(low, high), 4)
            for fault, (name, low, high) in bounds.items()
            if fault in streams
        }
    )


def _spread(plan: Scenario, dice: Random | None, low: float, high: float) -> dict[int, float]:
    """A value for every peer, or none for any."""
    return {} if dice is None else {index: round(dice.uniform(low, high), 5) for index in range(plan.population)}


def _round(plan: Scenario, dice: Random) -> int:
    return dice.randint(1, max(1, plan.rounds - 1))


def _draw_stalls(plan: Scenario, dice: Random | None) -> tuple[Stall, ...]:
    if dice is None:
        return ()
    return tuple(
        Stall(dice.randrange(plan.population), _round(plan, dice), round(dice.uniform(0.05, 0.4) * DELAY_S, 3))
        for _ in range(dice.randint(1, plan.peers))
    )


def _draw_crashes(plan: Scenario, streams: dict[Fault, Random]) -> tuple[Crash, ...]:
    """Honest peers that die, for good or to come back: more than half of all remain honest and alive."""
    kinds = [fault for fault in (Fault.CRASH, Fault.RESTART, Fault.POWER) if fault in streams]
    if not kinds:
        return ()
    dice = streams[kinds[0]]
    strangers = draw_strangers_crashes(plan, dice)
    spare = max(0, plan.spare - len(strangers))  # who comes back too late is removed as well
    most = min(spare, 3)
    dying = [fault for fault in kinds for _ in range(dice.randint(min(1, most), most))]
    dying = dice.sample(dying, min(spare, len(dying)))
    absent = {absence.peer for absence in plan.absences}
    members = [index for index in plan.honest if index < plan.peers and index not in absent]
    victims = dice.sample(members, len(dying))
    drawn = [_draw_crash(plan, dice, victim, fault) for victim, fault in zip(victims, dying, strict=True)]
    return (*drawn, *strangers)


def _draw_blackout(plan: Scenario, dice: Random | None) -> tuple[Crash, ...]:
    """All honest members at about one moment; they are back together, or one after another."""
    if dice is None:
        return ()
    number, moment, count = _round(plan, dice), dice.choice(tuple(Moment)), dice.choice((1, 2, 5, 20, 60, 150, 300))
    together, spread = dice.uniform(0.3, 1) * DELAY_S, dice.choice((0, 0.1, 0.4)) * DELAY_S
    return tuple(
        Crash(victim, number, moment, count, round(together + dice.uniform(0, spread), 3))
        for victim in plan.honest
        if victim < plan.peers
    )


def _draw_crash(plan: Scenario, dice: Random, victim: int, fault: Fault) -> Crash:
    return Crash(
        victim,
        _round(plan, dice),
        dice.choice(tuple(Moment)),
        dice.choice((1, 2, 3, 5, 8, 40, 200)),
        None if fault is Fault.CRASH else round(dice.uniform(0.05, 0.5) * DELAY_S, 3),
        loses_power=fault is Fault.POWER,
    )


def _draw_resets(plan: Scenario, dice: Random | None) -> tuple[Reset, ...]:
    if dice is None or plan.peers < 2:
        return ()
    drawn = []
    for _ in range(dice.randint(1, 2 * plan.peers)):
        one, other = dice.sample(range(plan.population), 2)
        drawn.append(Reset(one, other, _round(plan, dice), round(dice.uniform(0, DELAY_S), 3)))
    return tuple(drawn)


def _draw_spikes(plan: Scenario, dice: Random | None) -> tuple[Spike, ...]:
    if dice is None:
        return ()
    return tuple(
        Spike(
            dice.randrange(plan.population),
            _round(plan, dice),
            round(dice.uniform(1, 8) * DELAY_S, 2),
            round(dice.uniform(0.5, 8) * DELAY_S, 2),
        )
        for _ in range(dice.randint(1, 4))
    )


def _draw_partitions(plan: Scenario, dice: Random | None) -> tuple[Partition, ...]:
    if dice is None or plan.peers < 2:
        return ()
    drawn = []
    for _ in range(dice.randint(1, 3)):
        side = sorted(dice.sample(range(plan.population), dice.randint(1, plan.peers // 2)))
        drawn.append(Partition(tuple(side), _round(plan, dice), round(dice.uniform(1, 20) * DELAY_S, 2)))
    return tuple(drawn)


def _draw_freezes(plan: Scenario, dice: Random | None) -> tuple[Freeze, ...]:
    if dice is None:
        return ()
    return tuple(
        Freeze(dice.randrange(plan.population), _round(plan, dice), round(dice.uniform(1, 12) * DELAY_S, 2))
        for _ in range(dice.randint(1, 4))
    )


def _draw_sieges(plan: Scenario, dice: Random | None) -> tuple[Siege, ...]:
    """A few, short and of a few peers: a stranger says more in a second than a member in a round."""
    if dice is None:
        return ()
    return tuple(
        Siege(
            dice.choice(tuple(SIEGES)),
            dice.randint(1, 2),
            tuple(sorted(dice.sample(range(plan.peers), min(plan.peers, dice.randint(1, 3))))),
            _round(plan, dice),
            round(dice.uniform(0.5, 2.5) * DELAY_S, 2),
        )
        for _ in range(dice.randint(1, 2))
    )
