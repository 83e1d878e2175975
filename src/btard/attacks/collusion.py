"""Collusion: a wrong aggregate, covered up by contributors that forge their projections (attacks A1)."""

import math
from collections.abc import Mapping

from torch import Tensor

from btard.attacks.aggregates import RADII, shift
from btard.attacks.attacker import Attacker
from btard.attacks.coalition import Coalition, wait_for_note
from btard.identity import PeerId
from btard.rules.messages import Report
from btard.rules.parts import Part
from btard.swarm.state import Gradient

COVERED_RADII = 0.25
"""Clipping radii of the shift per coverer: what its forged projections can hide without being impossible."""

CONTRIBUTES, VALIDATES = 1.0, 0.0


class Collude(Attacker):
    """A member of a coalition of two or more.

    In each round the lowest of its contributors moves its own aggregate and tells the others what the
    projections on it must be changed by; they share the difference among themselves. Members do not
    name or accuse one another. Whoever is left alone goes on with a wrong aggregate of its own.
    """

    def __init__(self, first_round: int, seed: int, me: PeerId, coalition: Coalition, wait_s: float) -> None:
        super().__init__(first_round)
        self._seed, self._me, self._coalition, self._wait_s = seed, me, coalition, wait_s
        self._moved: set[tuple[int, int]] = set()
        coalition.put("members", me, ())

    def _is_partner(self, peer: PeerId) -> bool:
        return peer in self._coalition.get("members")

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the true gradient, and let the others know that we contribute."""
        self._coalition.put(f"round-{round_number}", self._me, (CONTRIBUTES,))
        return gradient

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Return the true verdict but for partners; let the others know that we are still there."""
        self._coalition.put(f"round-{round_number + 1}", self._me, (VALIDATES,))
        return guilty and not self._is_partner(target)

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return the aggregate, moved if it is our turn."""
        if not self.is_due(round_number) or not part.elements:
            return aggregate
        present = self._coalition.get(f"round-{round_number}")
        contributing = sorted(peer for peer, note in present.items() if note == (CONTRIBUTES,))
        if not set(present) - {self._me}:
            self.note_act(round_number)
            return shift(aggregate, part, RADII, self._seed)
        if contributing[:1] != [self._me] or len(contributing) == 1:
            return aggregate
        self.note_act(round_number)
        self._moved.add((round_number, attempt))
        self._coalition.put(f"moved-{round_number}-{attempt}", self._me, (part.index,))
        return shift(aggregate, part, COVERED_RADII * (len(contributing) - 1), self._seed)

    async def found(self, round_number: int, attempt: int, part: Part, own: Mapping[PeerId, Report]) -> None:
        """Tell each coverer what to subtract from its projections, so that all sums vanish."""
        coverers = [peer for peer in own if peer != self._me and self._is_partner(peer)]
        if (round_number, attempt) not in self._moved or not coverers:
            return
        columns = zip(*(report.projections for report in own.values()), strict=True)
        shares = [math.fsum(column) / len(coverers) for column in columns]
        self._coalition.put(f"cover-{round_number}-{attempt}", self._me, shares)

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return the reports, forged on a partner's part that was moved."""
        for part in parts:
            if (
                part.aggregator != self._me
                and part.aggregator in self._coalition.get(f"moved-{round_number}-{attempt}")
                and (cover := await self._wait_for_cover(round_number, attempt, part.aggregator))
            ):
                self.note_act(round_number)
                forged = self.forge(reports[part.index], cover, part.tau)
                reports = (*reports[: part.index], forged, *reports[part.index + 1 :])
        return reports

    async def _wait_for_cover(self, round_number: int, attempt: int, aggregator: PeerId) -> tuple[float, ...] | None:
        return await wait_for_note(self._coalition, f"cover-{round_number}-{attempt}", aggregator, self._wait_s)

    def namings(
        self, round_number: int, false_reporters: tuple[PeerId, ...], contributors: tuple[PeerId, ...]
    ) -> tuple[PeerId, ...]:
        """Return the false reporters but for partners."""
        return tuple(peer for peer in false_reporters if not self._is_partner(peer))

    def forge(self, report: Report, cover: tuple[float, ...], tau: float) -> Report:
        """Subtract the cover, and claim a norm at which projections of that size are possible."""
        return Report(_subtract(report, cover), max(report.norm, tau))


class ColludeWithNorms(Collude):
    """Colluders who forge norms as well: the least that their projections allow, so that no distance shows (V2)."""

    POSSIBLE = 9.0
    """How many norms long a projection may be before it opens the column by itself."""

    def forge(self, report: Report, cover: tuple[float, ...], tau: float) -> Report:
        """Subtract the cover, and hide how far the slice is from the aggregate."""
        projections = _subtract(report, cover)
        return Report(projections, max(map(abs, projections), default=0.0) / self.POSSIBLE * 1.001)


def _subtract(report: Report, cover: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(value - share for value, share in zip(report.projections, cover, strict=True))
