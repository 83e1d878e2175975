"""
Charges against candidates: made in COMMIT, answered in CONFIRM (design section 6, Joining 4; decision record 23).

Rules of this file

1. Only who was drawn to redo a sample charges its author, and only with that sample.
2. Every member answers every charge, and the answers of those that were there decide: more than half that find the
   sample false ban the candidate; with those that find it different they remove it without blame; more than half
   that find it true ban the checker. Otherwise nothing follows: not all may be able to redo what was done three
   rounds ago.
3. A candidate speaks in no transcript, so its going changes none: it takes effect with the round's seal.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from btard.identity import PeerId
from btard.rules.admission import Check
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Commit, Confirm, Finding, Transcript
from btard.rules.roster import Roster


@dataclass(frozen=True)
class Loss:
    """Who leaves by a charge, how, and for what."""

    peer: PeerId
    kind: DepartureKind
    cause: Cause
    charge: Check


def find_charges(commits: Transcript, checks: Sequence[Check], known: Collection[PeerId]) -> tuple[Check, ...]:
    """Return the checks whose drawn member charges its candidate in ``commits``, in order of the draw.

    Whoever is not ``known`` as a candidate or a member any more was dismissed, or has lapsed: it has nothing to lose.
    """
    charged = {
        message.sender: message.payload.quotes.charged
        for message in commits.messages
        if isinstance(message.payload, Commit)
    }
    return tuple(
        check
        for check in checks
        if check.work.candidate in known and check.work.candidate in charged.get(check.checker, ())
    )


def name_charges(charges: Sequence[Check]) -> list[tuple[PeerId, PeerId]]:
    """Return candidate and checker of each charge, which its answers repeat."""
    return [(charge.work.candidate, charge.checker) for charge in charges]


def settle_charges(charges: Sequence[Check], confirms: Transcript, electorate: Roster) -> tuple[Loss, ...]:
    """Return who leaves by the answers of ``electorate``, each once, in order of the charges."""
    found = ((find_loss(confirms, charge.work.candidate, charge.checker, electorate), charge) for charge in charges)
    losses = [Loss(PeerId(loss[0]), *loss[1:], charge) for loss, charge in found if loss is not None]
    return tuple({loss.peer: loss for loss in reversed(losses)}.values())[::-1]


def find_loss(
    confirms: Transcript, candidate: bytes, checker: bytes, electorate: Roster
) -> tuple[bytes, DepartureKind, Cause] | None:
    """Return who leaves by the answers to one charge, how, and for what; None where too few agree."""
    findings = Counter(
        _read_answer(message.payload, candidate, checker)
        for message in confirms.messages
        if message.sender in electorate and isinstance(message.payload, Confirm)
    )
    if findings[Finding.FALSE] >= electorate.majority:
        return candidate, DepartureKind.BAN, Cause.FALSE_GRADIENT
    if findings[Finding.FALSE] + findings[Finding.DIFFERENT] >= electorate.majority:
        return candidate, DepartureKind.REMOVAL, Cause.INCOMPATIBLE
    if findings[Finding.TRUE] >= electorate.majority:
        return checker, DepartureKind.BAN, Cause.FALSE_ACCUSATION
    return None


def _read_answer(confirm: Confirm, candidate: bytes, checker: bytes) -> Finding:
    """The first thing that a member says of a charge."""
    answers = (item.finding for item in confirm.answers if (item.candidate, item.checker) == (candidate, checker))
    return next(answers, Finding.UNKNOWN)
