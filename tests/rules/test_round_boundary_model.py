"""
Where somebody leaves while members are between two rounds: all honest ones end in one place (explanation/agreement.md).

Every honest member is still in the round before, in what another CONFIRM led it to, or in the next COMMIT with one of
two CONFIRM transcripts, started again or not; cheats show any of that, something else, another place, or nothing.
"""

from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement, product

import pytest
from msgspec.structs import replace
from tests.rules.build import make_message, make_position, make_roster

from btard.identity import PeerId
from btard.rules.messages import Holding, Phase, Reveal, Stage, View
from btard.rules.recovery import Equivocation, decide
from btard.rules.roster import Roster

ROUND, ATTEMPT = 5, 2
CHECK, CONFIRM, AGREE = (Stage(ROUND - 1, ATTEMPT, phase) for phase in (Phase.CHECK, Phase.CONFIRM, Phase.AGREE))
COMMIT, AGGREGATE, REVEAL, LATE = (
    Stage(ROUND, ATTEMPT, phase) for phase in (Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK)
)
WAITING, ASTRAY, NEXT, RESTARTED, PAST, BACK = "waiting", "astray", "next", "restarted", "past", "past and restarted"
REVEALING, CHECKING = "revealing", "checking"
FAR, EARLY, AHEAD, ABOUT, BEFORE = "far", "early", "ahead", "about to be ahead", "before"
Situation = tuple[str, bytes]
"""Where a member is, and which CONFIRM of the cheat it holds; empty while it waits for that."""
ONE, OTHER, THIRD = b"A", b"B", b"C"
HONEST: tuple[Situation, ...] = (
    (WAITING, b""), (WAITING, OTHER), (ASTRAY, OTHER), (NEXT, ONE), (NEXT, OTHER), (RESTARTED, ONE), (RESTARTED, OTHER),
    (PAST, ONE), (BACK, ONE),
)  # fmt: skip
CHEATING: tuple[Situation | None, ...] = (None, *HONEST, (NEXT, THIRD), (PAST, THIRD), (FAR, b""), (EARLY, b""))
LYING: tuple[Situation, ...] = ((AHEAD, b""), (ABOUT, b""), (BEFORE, b""))
"""Further lies, about stages that honest members know, and about some that they cannot be in beside each other."""
SIGNED = {(PAST, ONE), (BACK, ONE)}
"""Where all honest members are once one has everyone's AGGREGATE, and the seal of the round before signed for good."""


def make_view(situation: Situation, size: int) -> View:
    """What a member in a situation shows; the last member is the cheat that says what it likes."""
    where, version = situation
    whole = tuple(bytes([index + 1]) * 32 for index in range(size))
    confirms = (*whole[:-1], version * 32)
    part = (*whole[:-1], b"")
    last, current, held = {
        WAITING: ((CHECK, whole), CONFIRM, (*whole[1:-1], b"", version * 32)),
        ASTRAY: ((CONFIRM, confirms), AGREE, part),
        NEXT: ((CONFIRM, confirms), COMMIT, part),
        RESTARTED: (None, COMMIT, part),
        PAST: ((COMMIT, whole), AGGREGATE, part),
        BACK: ((AGGREGATE, part), COMMIT, part),
        REVEALING: ((AGGREGATE, whole), REVEAL, part),
        CHECKING: ((REVEAL, whole), LATE, part),
        FAR: (None, AGREE._replace(round=10**6), whole),
        EARLY: (None, COMMIT._replace(round=1), whole),
        AHEAD: ((CHECK, whole), AGGREGATE, whole),
        ABOUT: ((CHECK, whole), COMMIT, whole),
        BEFORE: ((CHECK, whole), COMMIT._replace(round=ROUND - 1), whole),
    }[where]
    holdings = [Holding(make_position(stage), digests) for stage, digests in ([last] if last else [])]
    return View(
        make_position(current), True, (*holdings, Holding(make_position(current), held)), (), (), b"", (), False
    )


def is_possible(honest: tuple[Situation, ...]) -> bool:
    """One CONFIRM leads to one place; whoever is past COMMIT holds everyone's, each said after one and the same."""
    is_past = not SIGNED.isdisjoint(honest)
    is_astray = any(where == ASTRAY for where, _ in honest)
    is_split = any(version == OTHER and where in {NEXT, RESTARTED} for where, version in honest)
    alike = {(NEXT, ONE), (RESTARTED, ONE), *SIGNED}
    return not (is_astray and is_split) and (not is_past or alike.issuperset(honest))


def explore(size: int) -> Iterator[tuple[tuple[Situation, ...], tuple[Situation | None, ...]]]:
    """All situations of the honest members, which are alike, with all that cheats can show."""
    cheats = (size - 1) // 2
    for honest in filter(is_possible, combinations_with_replacement(HONEST, size - cheats)):
        yield from ((honest, shown) for shown in product(CHEATING, repeat=cheats))


def settle(
    roster: Roster, honest: tuple[Situation | None, ...], shown: tuple[Situation | None, ...], attempt: int
) -> int | None:
    """The round that all go on with after a cheat was banned for something in COMMIT; None where nobody leaves."""
    views = {
        peer: make_view(item, len(roster)) for peer, item in zip(roster.members, (*honest, *shown), strict=True) if item
    }
    culprit = PeerId(roster.members[-1])
    evidence = Equivocation(*(make_message(culprit, COMMIT, Reveal(bytes([n]) * 32, ())) for n in (1, 2)))
    decision = decide(roster, views, [evidence], (len(roster) - 1) // 2, attempt=attempt)
    assert decision.banned in ((), (culprit,))
    return decision.resume_round if decision.banned else None


@pytest.mark.parametrize(("size", "expected"), [(3, 462), (5, 17_052)])
def test_nobody_honest_is_left_in_the_round_before(size: int, expected: int) -> None:
    """All go on with the next round only if every honest member has come to it, by one and the same CONFIRM.

    And in any case where the seal of the round before may be signed for good: nothing takes it back.
    """
    roster, count = make_roster(size), 0
    for honest, shown in explore(size):
        count += 1
        resumed = settle(roster, honest, shown, ATTEMPT)
        if resumed is None:  # all stay where they are, until one that was started again has caught up
            assert {RESTARTED, BACK}.intersection(where for where, _ in honest), (honest, shown)
            continue
        versions = {version for _, version in honest}
        is_through = all(where in {NEXT, RESTARTED, PAST, BACK} for where, _ in honest) and len(versions) == 1
        assert resumed == ROUND - 1 or (resumed == ROUND and is_through), (honest, shown)
        assert resumed == ROUND or not SIGNED.issuperset(honest), (honest, shown)
    assert count == expected


@pytest.mark.parametrize(("size", "expected"), [(3, 912), (5, 56_160)])
def test_nobody_is_led_astray_where_honest_views_are_missing(size: int, expected: int) -> None:
    """As many honest ones as make a majority with the cheats: all stay, or go on in a round where one of them is.

    What those who are away hold is not to be told from these views: whether a cheat has said another CONFIRM to them,
    and whether the seal of the round before is signed for good.
    """
    roster, cheats, count = make_roster(size), (size - 1) // 2, 0
    for honest in filter(is_possible, combinations_with_replacement(HONEST, size - cheats)):
        for present in sorted({item for n in range(1, cheats + 1) for item in combinations(honest, n)}):
            for shown in combinations_with_replacement((*CHEATING, *LYING), cheats):
                absent = (None,) * (size - cheats - len(present))
                if len(present) + len(shown) - shown.count(None) < roster.majority:
                    continue
                count += 1
                resumed = settle(roster, (*present, *absent), shown, ATTEMPT)
                is_there = any(where not in {WAITING, ASTRAY} for where, _ in honest)
                assert resumed in {None, ROUND - 1} or (resumed == ROUND and is_there), (honest, present, shown)
    assert count == expected


@pytest.mark.parametrize(("size", "expected"), [(3, 204), (5, 3_060)])
def test_a_round_that_all_have_begun_goes_on(size: int, expected: int) -> None:
    """Whoever was started again in it, and wherever cheats say that they are: a proof has the cheat banned at once."""
    roster, cheats, count = make_roster(size), (size - 1) // 2, 0
    for phases in (((PAST, ONE), (REVEALING, ONE), (BACK, ONE)), ((REVEALING, ONE), (CHECKING, ONE), (BACK, ONE))):
        for honest in combinations_with_replacement(phases, size - cheats):
            for shown in combinations_with_replacement((*CHEATING, *LYING), cheats):
                count += 1
                assert settle(roster, honest, shown, ATTEMPT) == ROUND, (honest, shown)
    assert count == expected


def test_whoever_has_said_the_next_commit_is_within_no_round() -> None:
    """Started again in the round before, it holds nobody there: that seal may be signed for good."""
    roster = make_roster(5)
    views = {peer: make_view((CHECKING, ONE), 5) for peer in roster.members[:3]}
    said = Holding(make_position(COMMIT._replace(round=ROUND + 1)), (bytes(32),) * 5)
    views[roster.members[0]] = replace(views[roster.members[0]], holdings=(said,))
    far = {roster.members[4]: make_view((FAR, b""), 5)}
    culprit = roster.members[4]
    evidence = Equivocation(*(make_message(culprit, COMMIT, Reveal(bytes([n]) * 32, ())) for n in (1, 2)))
    assert decide(roster, views | far, [evidence], 2, attempt=ATTEMPT).banned == ()


def test_nobody_goes_back_without_a_reason() -> None:
    """Where all came through alike and no cheat lies about it, the round before stands."""
    roster = make_roster(5)
    for honest in combinations_with_replacement(((NEXT, ONE), (PAST, ONE)), 3):
        for shown in product((None, (NEXT, ONE)), repeat=2):
            assert settle(roster, honest, shown, ATTEMPT) == ROUND


def test_later_attempts_stay_where_they_are() -> None:
    """Whatever a cheat shows then."""
    roster = make_roster(3)
    for shown in product(CHEATING, repeat=1):
        assert settle(roster, ((NEXT, ONE),) * 2, shown, ATTEMPT + 1) == ROUND


def test_nobody_goes_on_from_where_all_were_in_the_attempt_before() -> None:
    """The round before is run again, and two cheats say that they are still in the COMMIT that all had come to."""
    roster, again = make_roster(5), AGGREGATE._replace(round=ROUND - 1, attempt=ATTEMPT + 1)
    part = (*(bytes([index + 1]) * 32 for index in range(4)), b"")
    commit, aggregate = (Holding(make_position(stage), part) for stage in (COMMIT, again))
    here = View(make_position(again), True, (commit, aggregate), (), (), b"", (), False)
    lie = View(make_position(COMMIT), True, (commit,), (), (), b"", (), False)
    evidence = [Equivocation(*(make_message(roster.members[4], again, Reveal(bytes([n]) * 32, ())) for n in (1, 2)))]
    for views in ((here, here, here, lie, lie), (here, here, here, lie)):
        shown = dict(zip(roster.members, views, strict=False))
        decision = decide(roster, shown, evidence, 2, attempt=ATTEMPT + 1)
        assert (decision.banned, decision.resume_round) == ((roster.members[4],), ROUND - 1)


def test_there_is_no_round_before_the_first() -> None:
    """Half of the views say that they are at the end of round 0: nobody leaves, and nobody goes back to it."""
    roster = make_roster(3)
    views = {
        peer: View(make_position(stage), True, (), (), (), b"", (), False)
        for peer, stage in (
            (roster.members[0], Stage(1, 0, Phase.COMMIT)),
            (roster.members[2], Stage(0, 0, Phase.AGREE)),
        )
    }
    culprit = roster.members[2]
    evidence = Equivocation(*(make_message(culprit, COMMIT, Reveal(bytes([n]) * 32, ())) for n in (1, 2)))
    assert decide(roster, views, [evidence], 1, attempt=0).banned == ()
