"""
Vectors of ours that others may read, and until when.

A message that waits for its reader keeps the whole vector that it is a piece of. So what is lent of a round is taken
back when the second round after it begins, as we let go of it ourselves then: by that time everybody has it from
somebody. Else one member that reads more slowly than we offer would keep every round.
"""

from weakref import WeakSet

import trio

from btard.net import Loan
from btard.rules.config import RunConfig

PATIENCE = 4
"""Transfers of the whole vector that one message may take: its receiver has long pulled it from somebody by then."""


def compute_send_patience(config: RunConfig) -> float:
    """Return the seconds after which a transfer is given up, whatever round it is."""
    return PATIENCE * (config.delay_s + 4 * config.elements / config.min_bandwidth)


class Lender:
    """What one service has lent, by round."""

    def __init__(self, config: RunConfig) -> None:
        self._usual_s = self._patience_s = compute_send_patience(config)
        self._scopes: dict[int, WeakSet[trio.CancelScope]] = {}

    def lend(self, number: int, payload: memoryview) -> Loan:
        """Let one peer read a payload of round ``number``."""
        scope = trio.move_on_after(self._patience_s)
        self._scopes.setdefault(number, WeakSet()).add(scope)
        return Loan(payload, scope)

    def lend_longer(self, patience_s: float) -> None:
        """Let peers read for so long, if that is longer, until the next round begins: so much has to be sent."""
        self._patience_s = max(self._patience_s, patience_s)

    def begin_round(self, number: int) -> None:
        """Take back what is older than the round before."""
        self._patience_s = self._usual_s
        for old in [key for key in self._scopes if key < number - 1]:
            for scope in self._scopes.pop(old):
                scope.cancel()
