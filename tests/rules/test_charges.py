"""Charges against candidates: who may make one, what the answers decide, who pays (design section 6, Joining 4)."""

from collections.abc import Sequence

import pytest
from tests.rules.build import make_peers, make_roster, make_transcript

from btard.identity import PeerId
from btard.rules.admission import Check, Work
from btard.rules.charges import find_charges, name_charges, settle_charges
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Answer, Commit, Confirm, Finding, Phase, Quotes, Report, Stage, Transcript

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
ADA, BOB = (PeerId(bytes([number]) * 32) for number in (200, 201))
FALSE, DIFFERENT, TRUE, UNKNOWN = Finding.FALSE, Finding.DIFFERENT, Finding.TRUE, Finding.UNKNOWN
BANNED = (ADA, DepartureKind.BAN, Cause.FALSE_GRADIENT)
DISMISSED = (ADA, DepartureKind.REMOVAL, Cause.INCOMPATIBLE)
SLANDER = (B, DepartureKind.BAN, Cause.FALSE_ACCUSATION)


def charge(candidate: PeerId = ADA, checker: PeerId = B) -> Check:
    """What ``checker`` was drawn to redo and finds false."""
    return Check(checker, Work(candidate, 4, Report((0.5,), 1.0)))


def commit(charged: dict[PeerId, tuple[PeerId, ...]]) -> Transcript:
    """The COMMITs of round 7 with these charges."""
    said = {
        peer: Commit(b"r" * 32, False, (), b"s" * 32, b"g" * 64, False, Quotes(charged=charged.get(peer, ())))
        for peer in ROSTER.members
    }
    return make_transcript(Stage(7, 2, Phase.COMMIT), said)


def confirm(*answers: tuple[Answer, ...]) -> Transcript:
    """The CONFIRMs of round 7, one for each of the first members."""
    said = {peer: Confirm(b"n" * 32, (), told) for peer, told in zip(ROSTER.members, answers, strict=False)}
    return make_transcript(Stage(7, 2, Phase.CONFIRM), said)


def answer(finding: Finding, about: Check | None = None) -> Answer:
    """What one member finds of a charge."""
    about = about or charge()
    return Answer(about.work.candidate, about.checker, finding)


def settle(findings: Sequence[Finding]) -> tuple[tuple[PeerId, DepartureKind, Cause], ...]:
    """Who leaves by findings about one charge."""
    said = confirm(*((answer(finding),) for finding in findings))
    return tuple((loss.peer, loss.kind, loss.cause) for loss in settle_charges([charge()], said, ROSTER))


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([FALSE] * 5, BANNED),
        ([FALSE] * 3 + [TRUE] * 2, BANNED),
        ([FALSE] * 2 + [DIFFERENT] + [TRUE] * 2, DISMISSED),
        ([DIFFERENT] * 3 + [UNKNOWN] * 2, DISMISSED),
        ([FALSE] * 2 + [UNKNOWN] * 3, None),
        ([FALSE] + [DIFFERENT] + [TRUE] * 2 + [UNKNOWN], None),
        ([TRUE] * 3 + [FALSE] * 2, SLANDER),
        ([TRUE] * 2 + [UNKNOWN] * 3, None),  # not all may be able to redo it: nobody pays
        ([UNKNOWN] * 5, None),
    ],
)
def test_more_than_half_decide(findings: list[Finding], expected: object) -> None:
    """A gross lie is a ban, another kind of machine a dismissal, a true sample the end of its checker."""
    assert settle(findings) == (() if expected is None else (expected,))


def test_silence_decides_nothing() -> None:
    """Two of five find it false, the others are not heard."""
    assert settle([FALSE] * 2) == ()


def test_newcomers_have_no_answer_that_counts() -> None:
    """More than half of those that were there, and by their answers alone."""
    said = confirm(*[(answer(FALSE),)] * 3 + [(answer(TRUE),)] * 2)
    without = ROSTER.without([A, B])
    assert [loss.cause for loss in settle_charges([charge()], said, ROSTER)] == [Cause.FALSE_GRADIENT]
    assert [loss.cause for loss in settle_charges([charge()], said, without)] == [Cause.FALSE_ACCUSATION]


def test_answers_count_for_the_charge_that_they_name() -> None:
    """Another candidate, or the charge of another checker, is another question."""
    other, by_other = charge(BOB), charge(checker=C)
    said = confirm(*[(answer(FALSE, other), answer(TRUE, by_other))] * 5)
    assert settle_charges([charge()], said, ROSTER) == ()
    assert [loss.peer for loss in settle_charges([other, by_other], said, ROSTER)] == [BOB, C]


def test_whoever_answers_twice_is_counted_once() -> None:
    """Two of five cannot be three by saying it again."""
    said = confirm(*[(answer(FALSE), answer(FALSE))] * 2 + [(answer(UNKNOWN),)] * 3)
    assert settle_charges([charge()], said, ROSTER) == ()


def test_nobody_leaves_twice() -> None:
    """A checker that slandered two candidates goes for the first of them."""
    charges = [charge(), charge(BOB)]
    said = confirm(*[tuple(answer(TRUE, item) for item in charges)] * 5)
    (loss,) = settle_charges(charges, said, ROSTER)
    assert (loss.peer, loss.charge) == (B, charges[0])


def test_only_the_drawn_member_charges() -> None:
    """A charge by anybody else, or against anybody else, opens nothing."""
    drawn = charge()
    assert find_charges(commit({B: (ADA,)}), [drawn], {ADA, BOB}) == (drawn,)
    assert find_charges(commit({C: (ADA,)}), [drawn], {ADA, BOB}) == ()
    assert find_charges(commit({B: (BOB,)}), [drawn], {ADA, BOB}) == ()


def test_who_is_gone_has_nothing_to_lose() -> None:
    """A candidate that was dismissed, banned or has lapsed is charged in vain."""
    assert find_charges(commit({B: (ADA,)}), [charge()], {BOB, *make_peers(5)}) == ()


def test_answers_name_charges_by_candidate_and_checker() -> None:
    """In the order of the charges."""
    assert name_charges([charge(), charge(BOB, C)]) == [(ADA, B), (BOB, C)]
