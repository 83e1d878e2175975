"""
Dolev–Strong: all honest members end with the same value of every sender, however few they are (design section 5).

One instance per sender, all in step with one another. A value counts in step k with the signatures of
k members, its sender's among them; whoever takes it adds its own and passes it on. After f+1 steps one of the
signers is honest, and what an honest member takes, all take one step later. No clock here: the caller
says in which step something arrived.

Rules of this file

1. A value arrives with k distinct signatures of members in step k, or not at all.
2. Two values of one sender are passed on, never a third: with two, everyone knows it has none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

from btard.identity import PeerId
from btard.rules.roster import Roster

MAX_VALUES = 2
"""Values of one sender that are taken and passed on: two are enough to show that it has none."""
OPENING = 4
"""Δ in the first step: a view is due after two, and the ballot that follows it after four."""
STEP = 2
"""Δ in every later step: members enter within Δ of each other, and a message takes Δ."""


@dataclass(frozen=True)
class Extraction:
    """What one member has taken of one sender so far, in the order in which it came."""

    values: tuple[bytes, ...] = ()

    def takes(self, roster: Roster, tolerated: int, step: int, sender: PeerId, signers: Collection[PeerId]) -> bool:
        """Return whether a new value with these signers counts in ``step``, the first of which is 1."""
        members = {signer for signer in signers if signer in roster}
        is_timely = step <= tolerated + 1 and len(members) >= step
        return sender in members and is_timely and len(self.values) < MAX_VALUES

    def with_value(self, value: bytes) -> "Extraction":
        """This and one value more."""
        return self if value in self.values else Extraction((*self.values, value))

    @property
    def outcome(self) -> bytes | None:
        """The sender's one value, or None: it has shown none, or two."""
        return self.values[0] if len(self.values) == 1 else None


def find_vector(extractions: Mapping[PeerId, Extraction]) -> dict[PeerId, bytes]:
    """Return the value of every sender that has exactly one: after the last step the same at all honest members."""
    found = {sender: extractions[sender].outcome for sender in sorted(extractions)}
    return {sender: value for sender, value in found.items() if value is not None}


def find_split(extractions: Mapping[PeerId, Extraction]) -> tuple[PeerId, ...]:
    """Return the senders that showed two values: as many know of each, if not of the same two."""
    return tuple(sender for sender in sorted(extractions) if len(extractions[sender].values) == MAX_VALUES)


def find_step(elapsed_s: float, delay_s: float) -> int:
    """Return the step in which something arrives, so many seconds after one's own entry into the recovery."""
    return 1 + max(0, ceil(elapsed_s / delay_s - OPENING) + 1) // STEP


def compute_end(tolerated: int, delay_s: float) -> float:
    """Return how many seconds after one's own entry the last step ends, of f+1 but at least two."""
    return (OPENING + STEP * max(tolerated, 1)) * delay_s
