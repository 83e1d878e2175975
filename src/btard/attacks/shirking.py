"""Attacks by candidates: to become a member without the work (attacks B8, B10)."""

import random
from collections.abc import Callable

from btard.attacks.attacker import Attacker, choose
from btard.identity import PeerId
from btard.rules.messages import Report

LIKELY_NORM = 1.0


class IdleCandidate(Attacker):
    """Computes no gradient on probation; what it says instead is drawn, well-formed, and of a likely size."""

    def __init__(self, first_round: int, seed: int, me: PeerId, projections: int) -> None:
        super().__init__(first_round)
        self._seed, self._me, self._projections = seed, me, projections

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return a sample of nothing."""
        if not self.is_due(round_number):
            return compute()
        self.note_act(round_number)
        draw = random.Random(choose(range(1 << 32), "idle", self._seed, self._me, round_number))  # noqa: S311
        return Report(tuple(draw.gauss(0.0, LIKELY_NORM) for _ in range(self._projections)), LIKELY_NORM)
