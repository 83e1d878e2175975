"""What all attackers share: honest until a given round, and a note of when they first cheated."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from btard.identity import Context, digest
from btard.swarm.conduct import Conduct

T = TypeVar("T")


def _tell_nobody(round_number: int) -> None:
    """Be the default of ``on_first_act``."""


class Attacker(Conduct):
    """A conduct that is honest before ``first_round``.

    ``acted_in_round`` is the round in which it first did what an honest peer would not, None until
    then; ``on_first_act`` is called with that round once, possibly from a worker thread.
    """

    def __init__(self, first_round: int) -> None:
        self.first_round = first_round
        self.acted_in_round: int | None = None
        self.on_first_act: Callable[[int], None] = _tell_nobody

    def is_due(self, round_number: int) -> bool:
        """Return whether the attack has begun."""
        return round_number >= self.first_round

    def note_act(self, round_number: int) -> None:
        """Remember and announce the first act."""
        if self.acted_in_round is None:
            self.acted_in_round = round_number
            self.on_first_act(round_number)


def choose(options: Sequence[T], *reasons: int) -> T:
    """Return one of the options, the same for equal reasons on every machine."""
    number = digest(Context.EXPAND, b"attack", repr(reasons).encode())
    return options[int.from_bytes(number[:8], "little") % len(options)]
