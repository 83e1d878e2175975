"""Attacks on what is said about a part: a wrong aggregate, and a wrong report on somebody else's."""

from torch import Tensor

from btard.attacks.attacker import Attacker, choose
from btard.attacks.gradients import draw_direction
from btard.rules.messages import Report
from btard.rules.parts import Part

RADII = 5.0
"""By how many clipping radii a wrong aggregate is moved."""


def shift(aggregate: Tensor, part: Part, radii: float, seed: int) -> Tensor:
    """Return the aggregate moved by ``radii`` times the part's clipping radius in a direction drawn from the seed."""
    purpose = f"part {part.start}-{part.stop}".encode()
    return aggregate + radii * part.tau * draw_direction(seed, aggregate.numel(), purpose)


class WrongAggregate(Attacker):
    """Moves the aggregate of its own part, and commits to that."""

    def __init__(self, first_round: int, seed: int) -> None:
        super().__init__(first_round)
        self._seed = seed

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return the aggregate plus R; without a part in this attempt, what it did in an earlier one is void."""
        if not self.is_due(round_number):
            return aggregate
        if not part.elements:
            self.take_back(round_number)
            return aggregate
        self.note_act(round_number)
        return shift(aggregate, part, RADII, self._seed)


class LyingProjection(Attacker):
    """Reports s + τ in place of its projections s: on one part, or on all of them."""

    def __init__(self, first_round: int, seed: int, *, on_all_parts: bool = False) -> None:
        super().__init__(first_round)
        self._seed, self._on_all_parts = seed, on_all_parts

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return the reports with a lie among them."""
        inhabited = [part.index for part in parts if part.elements]
        if not self.is_due(round_number) or not inhabited:
            return reports
        self.note_act(round_number)
        chosen = choose(inhabited, self._seed, round_number, attempt)
        lies = set(inhabited) if self._on_all_parts else {chosen}
        return tuple(
            _add(report, part.tau) if part.index in lies else report
            for part, report in zip(parts, reports, strict=True)
        )


def _add(report: Report, offset: float) -> Report:
    return Report(tuple(value + offset for value in report.projections), report.norm)
