"""
A scenario: everything that one seed decides about a simulated run, as a value.

Faults come in two classes, and the checkers know which of them a scenario has. The first keeps
synchrony: whatever it does, a message between two honest peers arrives within Δ. The second breaks it
for a while, and then the swarm may stop, but neither split nor ban an honest peer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

DELAY_S = 1.0
"""Δ of every simulated run."""
PROMPT_S = 1.5 * DELAY_S
"""Whoever is back after a crash within so long must not leave for it; in a blackout all are."""
JITTER = 0.1
"""By up to this share of its time a gradient takes longer than the fastest of its peer."""


class Fault(StrEnum):
    """The kinds of faults; docs/reference/cli.md says what each does."""

    LATENCY = "latency"
    JITTER = "jitter"
    LOSS = "loss"
    REORDER = "reorder"
    DUPLICATE = "duplicate"
    BANDWIDTH = "bandwidth"
    DISK = "disk"
    STALL = "stall"
    SKEW = "skew"
    CRASH = "crash"
    RESTART = "restart"
    RESET = "reset"
    SPIKE = "spike"
    PARTITION = "partition"
    FREEZE = "freeze"
    POWER = "power"
    BLACKOUT = "blackout"
    SIEGE = "siege"
    STRANGERS = "strangers"
    COMPUTE = "compute"


BREAKS_SYNCHRONY = frozenset({Fault.RESET, Fault.SPIKE, Fault.PARTITION, Fault.FREEZE})
"""While one of these lasts, a message between two honest peers may be heard later than Δ."""


class Moment(StrEnum):
    """Where a crash strikes, counted from the peer's end of a round on."""

    WRITE = "write"
    """In its k-th write to the ledger, which is not on disk afterwards."""
    WRITTEN = "written"
    """Right after its k-th write to the ledger, before what was written is sent."""
    AWAIT = "await"
    """At the k-th step of any of its tasks."""


@dataclass(frozen=True)
class Crash:
    """A peer dies at the ``count``-th ``moment`` after its end of ``round``; it restarts after a while, or never.

    With ``loses_power`` its machine dies with it, and what was not synced to the disk is gone.
    """

    peer: int
    round: int
    moment: Moment
    count: int
    restart_s: float | None = None
    loses_power: bool = False

    @property
    def is_prompt(self) -> bool:
        """Whether the peer is back so soon that nobody may call it silent (agreement.md), nor its data withheld."""
        return self.restart_s is not None and self.restart_s <= PROMPT_S


@dataclass(frozen=True)
class Stall:
    """A peer stands still for ``lasts_s`` seconds from its end of ``round`` on."""

    peer: int
    round: int
    lasts_s: float


@dataclass(frozen=True)
class Freeze(Stall):
    """A stall longer than deadlines allow for, in which its timers stand still as well."""


@dataclass(frozen=True)
class Siege:
    """Strangers keep links to ``victims`` and do ``kind`` on them, for ``lasts_s`` seconds from ``round`` on."""

    kind: str
    strangers: int
    victims: tuple[int, ...]
    round: int
    lasts_s: float


@dataclass(frozen=True)
class Reset:
    """The link between two peers breaks ``after_s`` seconds after ``round``; what is under way on it is lost."""

    one: int
    other: int
    round: int
    after_s: float


@dataclass(frozen=True)
class Spike:
    """Messages to and from a peer take ``extra_s`` seconds longer, for ``lasts_s`` seconds from ``round`` on."""

    peer: int
    round: int
    lasts_s: float
    extra_s: float


@dataclass(frozen=True)
class Partition:
    """Messages between ``side`` and the others wait until the partition ends, ``lasts_s`` seconds after ``round``."""

    side: tuple[int, ...]
    round: int
    lasts_s: float


@dataclass(frozen=True)
class Arrival:
    """A stranger comes when the first peer has ended ``round``; it is numbered after those of the genesis."""

    round: int


@dataclass(frozen=True)
class Absence:
    """A member says goodbye after ``round``, and comes as a stranger ``back_s`` seconds after it has left."""

    peer: int
    round: int
    back_s: float


@dataclass(frozen=True)
class Entrance:
    """What a run that strangers come to asks of them; fields of its configuration."""

    probation: int
    check_rate: float
    state_interval: int


Happening = Stall | Crash | Reset | Spike | Partition | Siege | Absence


@dataclass(frozen=True)
class Weather:
    """What the network does to every message; seconds, probabilities and bytes per second."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    bandwidth: float = 0.0
    """What each peer can send; 0 means without bound."""


@dataclass(frozen=True)
class Scenario:
    """One simulated run. Peers are numbered from 0, the founder; ``adversaries`` maps them to what they do.

    Strangers come after the ``peers`` of the genesis, in the order of ``arrivals``. What strikes a peer after its end
    of a round strikes a stranger after its so manieth step: a sample, its promotion, a round as a member. With
    ``comeback_s`` an honest peer that was removed comes as a stranger so many seconds later. ``gradients`` are the
    seconds that one takes each peer, ``promises`` those that cheats say instead.
    """

    seed: int
    peers: int
    rounds: int
    task: str
    adversaries: Mapping[int, str]
    attack_from: int
    faults: tuple[Fault, ...]
    weather: Weather = Weather()
    disks: Mapping[int, float] | None = None
    clocks: Mapping[int, float] | None = None
    stalls: tuple[Stall, ...] = ()
    crashes: tuple[Crash, ...] = ()
    resets: tuple[Reset, ...] = ()
    spikes: tuple[Spike, ...] = ()
    partitions: tuple[Partition, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    sieges: tuple[Siege, ...] = ()
    entrance: Entrance | None = None
    arrivals: tuple[Arrival, ...] = ()
    absences: tuple[Absence, ...] = ()
    comeback_s: float | None = None
    gradients: Mapping[int, float] | None = None
    promises: Mapping[int, float] | None = None

    @property
    def population(self) -> int:
        """How many take part at some time: those of the genesis, and strangers."""
        return self.peers + len(self.arrivals)

    @property
    def spare(self) -> int:
        """How many honest peers of the genesis may be missing with more than half of it honest and there."""
        return max(0, (self.peers + 1) // 2 - 1 - len(self.adversaries) - len(self.absences))

    @property
    def is_synchronous(self) -> bool:
        """Whether every message between honest peers arrives within Δ."""
        return not (self.resets or self.spikes or self.partitions or self.freezes)

    @property
    def honest(self) -> tuple[int, ...]:
        """The peers without an adversary."""
        return tuple(index for index in range(self.population) if index not in self.adversaries)

    def as_json(self) -> dict[str, Any]:
        """The scenario as JSON has it: words, numbers, lists and objects only."""
        fields = asdict(self)
        for name in ("adversaries", "disks", "clocks", "gradients", "promises"):
            fields[name] = {str(index): value for index, value in (fields[name] or {}).items()}
        return {**fields, "is_synchronous": self.is_synchronous}

    def describe(self) -> list[str]:
        """The scenario in lines for people."""
        kinds = ", ".join(f"{index} {kind}" for index, kind in sorted(self.adversaries.items()))
        lines = [
            f"seed {self.seed}: {self.peers} peers, {self.rounds} rounds, task {self.task}, "
            + ("synchronous" if self.is_synchronous else "synchrony is broken for a while"),
            f"adversaries from round {self.attack_from}: {kinds or 'none'}",
            f"faults: {', '.join(self.faults) or 'none'}",
        ]
        if self.weather != Weather():
            worth = {name: value for name, value in asdict(self.weather).items() if value}
            lines.append("network: " + ", ".join(f"{name} {value:.3g}" for name, value in worth.items()))
        happenings: tuple[Happening, ...] = (
            *self.stalls,
            *self.crashes,
            *self.resets,
            *self.spikes,
            *self.partitions,
            *self.freezes,
            *self.sieges,
            *self.absences,
        )
        comers = [f"round {item.round}: stranger {self.peers + n} comes" for n, item in enumerate(self.arrivals)]
        return (
            lines
            + self._describe_gradients()
            + self._describe_entrance()
            + comers
            + [f"round {item.round}: {_tell(item)}" for item in sorted(happenings, key=lambda item: item.round)]
        )

    def _describe_gradients(self) -> list[str]:
        if not self.gradients:
            return []
        told = ", ".join(f"{index} {seconds:g} s" for index, seconds in sorted(self.gradients.items()))
        lies = ", ".join(f"{index} {seconds:g} s" for index, seconds in sorted((self.promises or {}).items()))
        return [f"a gradient takes: {told}; cheats promise: {lies or 'nothing'}"]

    def _describe_entrance(self) -> list[str]:
        if self.entrance is None:
            return []
        told = ", ".join(f"{name} {value:g}" for name, value in asdict(self.entrance).items())
        back = "for good" if self.comeback_s is None else f"for {self.comeback_s:.1f} s"
        return [f"strangers: {told}; honest peers that are removed go {back}; rounds of a stranger are its steps"]


def _tell(item: Happening) -> str:
    match item:
        case Crash():
            what = "loses power" if item.loses_power else "crashes"
            back = "for good" if item.restart_s is None else f"and restarts after {item.restart_s:.2f} s"
            told = f"peer {item.peer} {what} at {item.moment.value} {item.count} {back}"
        case Reset():
            told = f"the link between {item.one} and {item.other} breaks after {item.after_s:.2f} s"
        case Spike():
            told = f"peer {item.peer} is {item.extra_s:.1f} s farther away for {item.lasts_s:.1f} s"
        case Partition():
            told = f"peers {', '.join(map(str, item.side))} are cut off for {item.lasts_s:.1f} s"
        case Siege():
            whom = ", ".join(map(str, item.victims))
            told = f"{item.strangers} strangers besiege {whom} ({item.kind}) for {item.lasts_s:.1f} s"
        case Absence():
            told = f"peer {item.peer} says goodbye, and comes as a stranger {item.back_s:.1f} s later"
        case Stall():
            how = "is frozen" if isinstance(item, Freeze) else "stalls"
            told = f"peer {item.peer} {how} for {item.lasts_s:.2f} s"
    return told
