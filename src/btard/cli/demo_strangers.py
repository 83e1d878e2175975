"""The strangers of a demo: when they come, what their way in costs, and whether there are rounds enough for it."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from btard.errors import ConfigError

if TYPE_CHECKING:
    from btard.cli.demo_plan import Settings

CHEAP_WORK: Mapping[str, int | float] = MappingProxyType(
    {"identity_bits": 8, "ticket_bits": 3, "ticket_memory_kib": 256, "check_rate": 1.0, "state_interval": 4}
)
"""Of a run that strangers join within a demo: work for an instant, and an admission every four rounds."""
MAX_PROBATION = 16
"""Rounds of probation in a demo at most; a twelfth of its rounds if that is less."""
FIRST_COMES = 2
"""Rounds that are done before the first stranger comes."""
FEWEST_ROUNDS, ROUNDS_PER_STRANGER = 60, 10
"""A stranger needs some seconds on the way to its ticket, and then its probation; places come one after another."""


def check_strangers(settings: "Settings") -> None:
    """Return if so many strangers can come through probation in a run of so many rounds.

    Raises:
        ConfigError: they cannot; the message says what to change.
    """
    if not settings.strangers:
        return
    if settings.defence == "none":
        raise ConfigError("a run without defence admits nobody; leave --late-joiners and --sybils out")
    least = FEWEST_ROUNDS + ROUNDS_PER_STRANGER * settings.strangers
    if settings.rounds < least:
        raise ConfigError(
            f"{settings.rounds} rounds are too few for {settings.strangers} strangers to come through probation; "
            f"choose --rounds {least} or more"
        )


def choose_joining(settings: "Settings") -> dict[str, int | float]:
    """Return what the run file of a demo asks of strangers, by field; where none come, quick identity work alone."""
    if not settings.strangers:
        return {"identity_bits": CHEAP_WORK["identity_bits"]}
    return {**CHEAP_WORK, "probation": max(4, min(MAX_PROBATION, settings.rounds // 12))}


def describe_joining(settings: "Settings") -> Iterator[str]:
    """Yield what differs for strangers of a demo from what a run asks of them otherwise."""
    if settings.strangers:
        asked = choose_joining(settings)
        yield (
            f"late joiners: {settings.late_joiners}, Sybils: {settings.sybils}; they come when the run has begun, and "
            f"so that this takes seconds, tickets cost 2^{asked['ticket_bits']} evaluations of "
            f"{asked['ticket_memory_kib']} KiB, and probation {asked['probation']} rounds, all of them checked"
        )


def schedule_strangers(settings: "Settings") -> list[tuple[str | None, int]]:
    """Return the attack of every stranger and the round after which it comes: in turn, over a third of the run."""
    from btard.attacks import IDLE_CANDIDATE

    turns = max(settings.late_joiners, settings.sybils)
    kinds = [
        kind
        for turn in range(turns)
        for kind, count in ((None, settings.late_joiners), (IDLE_CANDIDATE, settings.sybils))
        if turn < count
    ]
    return [(kind, FIRST_COMES + index * settings.rounds // (3 * len(kinds))) for index, kind in enumerate(kinds)]
