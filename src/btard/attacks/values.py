"""Attacks with numbers that arithmetic does not like: NaN, infinities, denormals, the largest there are."""

import math
from collections.abc import Callable

import torch
from msgspec.structs import replace
from torch import Tensor

from btard.attacks.attacker import Attacker, choose
from btard.rules.checks import MAX_REPORT
from btard.rules.messages import Aggregate, AnyPayload, Check, Report, Stage
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.state import Gradient, commit_to


def _set_first(value: float) -> Callable[[Tensor], Tensor]:
    return lambda values: torch.cat([torch.full_like(values[:1], value), values[1:]])


POISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nan": lambda values: torch.full_like(values, math.nan),
    "one-nan": _set_first(math.nan),
    "inf": lambda values: torch.full_like(values, math.inf),
    "one-minus-inf": _set_first(-math.inf),
    "largest": lambda values: torch.full_like(values, torch.finfo(torch.float32).max),
    "one-largest": _set_first(torch.finfo(torch.float32).max),
    "beyond-the-bound": lambda values: torch.full_like(values, 1.1e30),
    "denormal": lambda values: torch.full_like(values, 1e-45),
    "denormal-share": lambda values: values * 1e-40,
}
"""What float32 can hold and no honest gradient or aggregate does, as functions of the honest one."""

STRANGE_NUMBERS = (math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, MAX_REPORT, 5e-324)
"""What float64 can hold and no honest peer reports."""


class PoisonGradient(Attacker):
    """Commits to such values, scatters them with valid proofs, and reports what they give."""

    def __init__(self, first_round: int, seed: int, *, poison: str = "") -> None:
        super().__init__(first_round)
        self._seed, self._poison = seed, poison

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the poisoned gradient."""
        if not self.is_due(round_number):
            return gradient
        self.note_act(round_number)
        poison = POISONS[self._poison or choose(tuple(POISONS), self._seed, round_number)]
        return commit_to(poison(gradient.values), chunk_size)


class PoisonAggregate(Attacker):
    """Commits to such values as the aggregate of its part, and claims an ordinary norm for them."""

    def __init__(self, first_round: int, seed: int, *, poison: str = "") -> None:
        super().__init__(first_round)
        self._seed, self._poison = seed, poison

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return the poisoned aggregate."""
        if not self.is_due(round_number) or not part.elements:
            return aggregate
        self.note_act(round_number)
        return POISONS[self._poison or choose(tuple(POISONS), self._seed, round_number, attempt)](aggregate)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the AGGREGATE with a norm that counts."""
        if isinstance(payload, Aggregate) and self.act_in(stage) and not math.isfinite(payload.norm):
            return replace(payload, norm=1.0)
        return payload


class PoisonReports(Attacker):
    """Reports such numbers, as projections and norms, on one part or on all."""

    def __init__(self, first_round: int, seed: int, *, number: float | None = None) -> None:
        super().__init__(first_round)
        self._seed, self._number = seed, number

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the CHECK with poisoned reports."""
        if not isinstance(payload, Check) or not payload.reports or not self.act_in(stage):
            return payload
        self.note_act(stage.round)
        chosen = choose((None, *range(len(payload.reports))), self._seed, tuple(stage))
        reports = (
            self._poison(report, stage, part) if chosen in {None, part} else report
            for part, report in enumerate(payload.reports)
        )
        return replace(payload, reports=tuple(reports))

    def _poison(self, report: Report, stage: Stage, part: int) -> Report:
        number = self._number
        if number is None:
            number = choose(STRANGE_NUMBERS, self._seed, tuple(stage), part)
        if choose((True, False), self._seed, "norm", tuple(stage), part):
            return Report(report.projections, number)
        return Report(tuple(number for _ in report.projections), report.norm)
