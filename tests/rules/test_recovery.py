"""Recovery: agreed views decide who is missing; tables of what members hold and what follows (attacks A5, A6)."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as change
from tests.rules.build import make_message, make_peers, make_position, make_roster

from btard.identity import PeerId
from btard.rules.messages import Ballot, Holding, Phase, Reveal, SignedMessage, Stage, View
from btard.rules.recovery import (
    Equivocation,
    compute_views_digest,
    decide,
    find_certificate,
    is_equivocation,
)
from btard.rules.roster import Roster
from btard.rules.stages import find_later

ROUND = 5
CONFIRM = Stage(ROUND - 1, 2, Phase.CONFIRM)
COMMIT = Stage(ROUND, 2, Phase.COMMIT)
AGGREGATE = Stage(ROUND, 2, Phase.AGGREGATE)
REVEAL = Stage(ROUND, 2, Phase.REVEAL)
ROSTER = make_roster(5)
PEERS = ROSTER.members
EVERYONE = frozenset(range(5))


def digest_of(peer: int) -> bytes:
    """The digest of a member's message."""
    return bytes([peer + 1]) * 32


def make_view(
    stage: Stage, last: Stage, holds: frozenset[int], *, overdue: bool, supplied: tuple[bytes, ...] = ()
) -> View:
    """The view of a member in ``stage`` that has all of ``last`` and, of its own stage, what ``holds`` names."""
    own = tuple(digest_of(peer) if peer in holds else b"" for peer in range(len(PEERS)))
    every = tuple(digest_of(peer) for peer in range(len(PEERS)))
    holdings = (Holding(make_position(last), every), Holding(make_position(stage), own))
    return View(make_position(stage), overdue, holdings, supplied, (), b"", (), False)


def supply(index: int, stage: Stage = AGGREGATE) -> SignedMessage:
    """The message of a member for ``stage``, as a view supplies it."""
    return make_message(PEERS[index], stage, Reveal(bytes([index]) * 32, ()))


def make_views(*views: View) -> dict[PeerId, View]:
    """Views by sender, in roster order."""
    return dict(zip(PEERS, views, strict=False))


@dataclass(frozen=True)
class Case:
    """Members in AGGREGATE (after COMMIT): what each holds, who is overdue, and who is then removed."""

    description: str
    holds: tuple[frozenset[int], ...]
    overdue: tuple[bool, ...]
    removed: tuple[int, ...] = ()


WITHOUT_4 = EVERYONE - {4}
CASES = (
    Case("nothing is missing", (EVERYONE,) * 5, (True,) * 5),
    Case("a dead peer is removed", (WITHOUT_4,) * 4, (True,) * 4, (4,)),
    Case("f+1 overdue views are enough", (WITHOUT_4,) * 4, (True, True, True, False), (4,)),
    Case("f overdue views are too few", (WITHOUT_4,) * 4, (True, True, False, False)),
    Case("nobody is overdue", (WITHOUT_4,) * 4, (False,) * 4),
    Case("one holder saves the peer", (WITHOUT_4,) * 3 + (EVERYONE,), (True,) * 4),
    Case("its own view shows a message that it did not send in time", (WITHOUT_4,) * 4 + (EVERYONE,), (True,) * 5),
    Case("two dead peers are removed together", (EVERYONE - {3, 4},) * 3, (True,) * 3, (3, 4)),
    Case("different holes in different views", (EVERYONE - {3}, EVERYONE - {4}, EVERYONE), (True,) * 3),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_who_is_removed(case: Case) -> None:
    """A member is removed only if no agreed view holds its message and f+1 say the deadline has passed."""
    views = [
        make_view(AGGREGATE, COMMIT, holds, overdue=overdue)
        for holds, overdue in zip(case.holds, case.overdue, strict=True)
    ]
    supplied = [supply(peer) for held in case.holds for peer in held]
    decision = decide(ROSTER, make_views(*views), (), ROSTER.tolerated(), supplied)
    assert decision.removed == tuple(PEERS[index] for index in case.removed)
    assert decision.banned == ()
    assert decision.changes_roster == bool(case.removed)
    assert decision.resume_round == ROUND


def test_missing_messages_are_supplied_by_whoever_holds_them() -> None:
    """All that the agreed views supply is handed on, in roster order of the suppliers."""
    views = make_views(
        make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True),
        make_view(AGGREGATE, COMMIT, EVERYONE, overdue=True, supplied=(b"message of 4",)),
        make_view(AGGREGATE, COMMIT, EVERYONE, overdue=True, supplied=(b"message of 4", b"other")),
    )
    decision = decide(ROSTER, views, (), ROSTER.tolerated(), [supply(4)])
    assert decision.removed == ()
    assert decision.supplied == (b"message of 4", b"message of 4", b"other")


def test_lagging_honest_member_is_not_removed_for_the_phase_it_never_reached() -> None:
    """Whoever still waits in COMMIT holds up AGGREGATE without blame: the lower phase resumes first (attacks A6)."""
    behind = make_view(COMMIT, CONFIRM, WITHOUT_4, overdue=False)
    ahead = make_view(AGGREGATE, COMMIT, EVERYONE - {0}, overdue=True)
    decision = decide(ROSTER, make_views(behind, ahead, ahead, ahead, ahead), (), ROSTER.tolerated())
    assert not decision.changes_roster


@pytest.mark.parametrize(
    "lie",
    [
        Stage(0, 0, Phase.COMMIT),
        Stage(ROUND, 0, Phase.AGGREGATE),
        Stage(2**40, 0, Phase.COMMIT),
        Stage(0, 0, Phase.VOTE),
    ],
    ids=str,
)
def test_view_of_a_cheat_in_another_place_moves_nobody(lie: Stage) -> None:
    """Claiming to be in round 0, or far ahead, neither changes where the swarm resumes nor saves the silent."""
    honest = make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)
    views = make_views(honest, honest, honest, make_view(lie, lie, EVERYONE, overdue=False))
    decision = decide(ROSTER, views, (), ROSTER.tolerated())
    assert decision.resume_round == ROUND
    assert decision.removed == (PEERS[4],)


@pytest.mark.parametrize("phase", [Phase.HALT, Phase.VIEW, Phase.BALLOT])
def test_view_that_claims_to_be_in_a_recovery_moves_nobody(phase: Phase) -> None:
    """A position that no view can be taken in is dismissed."""
    honest = make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)
    views = make_views(honest, honest, honest, make_view(Stage(0, 0, phase), COMMIT, EVERYONE, overdue=True))
    assert decide(ROSTER, views, (), ROSTER.tolerated()).removed == (PEERS[4],)


def test_claim_to_hold_a_message_that_is_not_supplied_saves_nobody() -> None:
    """A colluder cannot keep a silent peer in the roster by pretending to hold its message."""
    honest = make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)
    views = make_views(honest, honest, honest, make_view(AGGREGATE, COMMIT, EVERYONE, overdue=True))
    decoys = [supply(3), supply(4, COMMIT)]  # another's message, and one of another stage
    assert decide(ROSTER, views, (), ROSTER.tolerated(), decoys).removed == (PEERS[4],)


def test_cheat_that_stays_a_phase_behind_does_not_save_the_silent() -> None:
    """One view from the phase before, which all others have completed, cannot prevent every removal."""
    honest = make_view(REVEAL, AGGREGATE, WITHOUT_4, overdue=True)
    views = make_views(honest, honest, honest, make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True))
    assert decide(ROSTER, views, (), ROSTER.tolerated()).removed == (PEERS[4],)


def test_message_that_f_plus_one_claim_to_hold_can_be_had() -> None:
    """One of f+1 holders is honest and will serve it, even if no view supplied it yet."""
    lacking = make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)
    holding = make_view(AGGREGATE, COMMIT, EVERYONE, overdue=True)
    assert decide(ROSTER, make_views(lacking, holding, holding, holding), (), 2).removed == ()
    assert decide(ROSTER, make_views(lacking, lacking, lacking, holding), (), 2).removed == (PEERS[4],)


def test_a_message_is_missing_only_if_an_honest_view_lacks_it() -> None:
    """With an honest view missing, two cheats that deny what the two others hold make nobody silent."""
    holding = make_view(AGGREGATE, COMMIT, EVERYONE - {4}, overdue=True)
    denying = make_view(AGGREGATE, COMMIT, frozenset({2, 3}), overdue=True)
    assert decide(ROSTER, make_views(holding, holding, denying, denying), (), 2, is_first=False).removed == (PEERS[4],)
    silent = make_view(AGGREGATE, COMMIT, EVERYONE - {3}, overdue=True)
    claiming = make_view(AGGREGATE, COMMIT, EVERYONE, overdue=True)
    views = make_views(silent, silent, silent, claiming, claiming)
    assert decide(ROSTER, views, (), 2, is_first=False).removed == (PEERS[3],)


FAR = Stage(10**6, 2, Phase.AGREE)


@pytest.mark.parametrize("lie", [FAR, Stage(1, 2, Phase.COMMIT), Stage(10**6, 1, Phase.AGREE)], ids=str)
@pytest.mark.parametrize("honest", [1, 2])
def test_views_of_which_half_may_be_lies_tell_no_place(lie: Stage, honest: int) -> None:
    """Nobody leaves where honest views are missing and f others claim another stage; all go on, and it comes again."""
    evidence = [make_equivocation(AGGREGATE, PEERS[4])]
    views = [make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)] * honest
    lies = [make_view(lie, lie, frozenset(), overdue=True)] * 2
    decision = decide(ROSTER, make_views(*views, *lies), evidence, 2)
    assert (decision.leaving, decision.agreed, decision.marked) == ((), False, frozenset())


def test_members_that_were_started_again_have_a_place_in_the_middle() -> None:
    """Three honest views have no stage in common that more than f know; two lies move them by no round."""
    back = change(make_view(COMMIT, CONFIRM, EVERYONE, overdue=False), holdings=())
    here = make_view(REVEAL, AGGREGATE, EVERYONE, overdue=False)
    evidence = [make_equivocation(REVEAL, PEERS[4])]
    for lie in (FAR, Stage(1, 2, Phase.COMMIT), Stage(10**6, 1, Phase.AGREE)):
        lies = [make_view(lie, lie, frozenset(), overdue=True)] * 2
        decision = decide(ROSTER, make_views(back, here, here, *lies), evidence, 2)
        assert (decision.banned, decision.resume_round) == ((PEERS[4],), ROUND)
    decision = decide(ROSTER, make_views(back, here, here), evidence, 2)
    assert (decision.banned, decision.resume_round) == ((PEERS[4],), ROUND)


def make_equivocation(stage: Stage, culprit: PeerId) -> Equivocation:
    """Two different reveals for one slot."""
    return Equivocation(*(make_message(culprit, stage, Reveal(bytes([n]) * 32, ())) for n in (1, 2)))


def test_equivocation_bans_its_author() -> None:
    """Two byte strings for one slot ban the signer, who is not removed as well."""
    view = make_view(AGGREGATE, COMMIT, WITHOUT_4, overdue=True)
    decision = decide(ROSTER, make_views(view, view, view, view), [make_equivocation(AGGREGATE, PEERS[4])], 2)
    assert (decision.banned, decision.removed) == ((PEERS[4],), ())
    assert decision.changes_roster


def test_equivocation_of_somebody_who_left_bans_nobody_here() -> None:
    """Evidence against a key that is no member changes no roster."""
    view = make_view(AGGREGATE, COMMIT, EVERYONE, overdue=False)
    decision = decide(ROSTER, make_views(view, view, view), [make_equivocation(AGGREGATE, make_peers(9)[8])], 2)
    assert not decision.changes_roster


LIKE_ALL = make_view(COMMIT, CONFIRM, EVERYONE, overdue=False)
OTHERWISE = change(LIKE_ALL, holdings=(Holding(make_position(CONFIRM), (b"x" * 32,) * 5), LIKE_ALL.holdings[1]))
IN_PART = change(
    LIKE_ALL, holdings=(Holding(make_position(CONFIRM), (digest_of(0),) * 4 + (b"",)), LIKE_ALL.holdings[1])
)
STARTED_AGAIN = change(LIKE_ALL, holdings=LIKE_ALL.holdings[1:])
BEHIND = make_view(CONFIRM, CONFIRM._replace(phase=Phase.CHECK), frozenset(range(4)), overdue=False)
IN_AGREE = make_view(CONFIRM._replace(phase=Phase.AGREE), CONFIRM, frozenset((4,)), overdue=False)
ASTRAY = change(IN_AGREE, holdings=(OTHERWISE.holdings[0], IN_AGREE.holdings[1]))
PAST = make_view(AGGREGATE, COMMIT, frozenset((1,)), overdue=False)


@pytest.mark.parametrize(
    ("views", "resumes"),
    [
        ([LIKE_ALL] * 5, ROUND),
        ([LIKE_ALL] * 4, ROUND),
        ([LIKE_ALL] * 4 + [OTHERWISE], ROUND - 1),  # it was told another CONFIRM
        ([LIKE_ALL] * 4 + [IN_PART], ROUND - 1),
        ([LIKE_ALL] * 4 + [STARTED_AGAIN], ROUND - 1),  # nobody can tell what it had
        ([LIKE_ALL] * 4 + [BEHIND], ROUND - 1),
        ([LIKE_ALL] * 4 + [ASTRAY], ROUND - 1),  # its CONFIRM led it elsewhere
        ([LIKE_ALL] * 3 + [PAST] * 2, ROUND),
        ([LIKE_ALL] * 2 + [OTHERWISE] + [PAST] * 2, ROUND - 1),  # two may lie that they are past it
        ([LIKE_ALL] + [OTHERWISE] + [PAST] * 3, ROUND),  # one of three is honest, and holds all COMMITs
    ],
)
def test_round_is_run_again_unless_all_came_through_it_alike(views: list[View], resumes: int) -> None:
    """Where somebody leaves in COMMIT, all go on from one and the same CONFIRM, or all go back (design, 4)."""
    evidence = [make_equivocation(COMMIT, PEERS[1])]
    decision = decide(ROSTER, make_views(*views), evidence, 2, attempt=COMMIT.attempt)
    assert decision.banned == (PEERS[1],)
    assert decision.resume_round == resumes


def test_a_later_attempt_never_goes_back() -> None:
    """It began with a settlement by which all came through the round before alike; before the first there is none."""
    evidence, views = [make_equivocation(CONFIRM, PEERS[1])], make_views(*[LIKE_ALL] * 4, OTHERWISE)
    assert decide(ROSTER, views, evidence, 2, attempt=COMMIT.attempt + 1).resume_round == ROUND
    first = make_view(Stage(1, 0, Phase.COMMIT), Stage(0, 0, Phase.HELLO), EVERYONE, overdue=False)
    assert decide(ROSTER, make_views(*[first] * 5), evidence, 2).resume_round == 1


def test_nobody_goes_back_where_nobody_leaves() -> None:
    """What was decided of a round stands until a roster changes."""
    decision = decide(ROSTER, make_views(*[LIKE_ALL] * 4, OTHERWISE), [], 2, attempt=COMMIT.attempt)
    assert (decision.changes_roster, decision.resume_round) == (False, ROUND)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (CONFIRM, COMMIT),
        (COMMIT, AGGREGATE),
        (COMMIT, AGGREGATE._replace(attempt=3)),
        (COMMIT, CONFIRM._replace(attempt=3)),  # the round before is opened again, and nobody is past it any more
        (CONFIRM._replace(attempt=3), COMMIT._replace(attempt=3)),
    ],
)
def test_a_run_comes_to_a_stage_after_another(earlier: Stage, later: Stage) -> None:
    """A new attempt is later than all that was said in the one before, though it may belong to an earlier round."""
    assert find_later([later], earlier)
    assert not find_later([earlier], later)


@given(st.lists(st.sets(st.integers(0, 4)), min_size=3, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_decision_follows_from_the_views_alone(holds: list[set[int]], overdue: list[bool]) -> None:
    """The order in which views arrived does not matter, and nobody whose message is supplied is removed."""
    views = make_views(
        *(
            make_view(AGGREGATE, COMMIT, frozenset(held), overdue=late)
            for held, late in zip(holds, overdue, strict=False)
        )
    )
    supplied = [supply(index) for held in holds for index in held]
    decision = decide(ROSTER, views, (), 2, supplied)
    assert decision == decide(ROSTER, dict(reversed(views.items())), (), 2, supplied)
    assert not {PEERS[index] for held in holds for index in held} & set(decision.removed)


# --- certificates ---

BALLOT = Stage(0, 2, Phase.BALLOT)


def make_ballots(roster: Roster, *votes: tuple[tuple[int, ...], bytes] | None) -> dict[PeerId, SignedMessage]:
    """One ballot per member: (indices of the silent, views digest), or None."""
    return {
        peer: make_message(peer, BALLOT, Ballot(tuple(roster.members[index] for index in vote[0]), vote[1]))
        for peer, vote in zip(roster.members, votes, strict=True)
        if vote is not None
    }


ONE, TWO = b"1" * 32, b"2" * 32


def test_votes_of_all_are_a_certificate() -> None:
    """Everyone agrees that nobody is silent."""
    ballots = make_ballots(ROSTER, *(((), ONE),) * 5)
    assert find_certificate(ROSTER, ballots) == ((), ONE, tuple(ballots[peer] for peer in PEERS))


def test_votes_of_everyone_but_the_silent_are_a_certificate() -> None:
    """Three of five suffice if they are all the others."""
    ballots = make_ballots(ROSTER, ((3, 4), ONE), ((3, 4), ONE), ((3, 4), ONE), None, None)
    silent, views, votes = find_certificate(ROSTER, ballots) or ((), b"", ())
    assert (silent, views, len(votes)) == ((PEERS[3], PEERS[4]), ONE, 3)


@pytest.mark.parametrize(
    "votes",
    [
        (None,) * 5,
        (((4,), ONE), ((4,), ONE), ((4,), ONE), None, None),  # 3 of 5, but not every member outside the silent
        (((2, 3, 4), ONE), ((2, 3, 4), ONE), None, None, None),  # everyone else, but a minority
        (((), ONE), ((), ONE), ((), ONE), ((), ONE), ((), TWO)),  # one sees other views
        (((4,), ONE), ((4,), ONE), ((4,), ONE), ((3,), ONE), None),  # one sees other silent
    ],
    ids=["none", "one is missing", "minority", "other views", "other silent"],
)
def test_no_certificate(votes: tuple) -> None:
    """Fewer than every member outside the silent, or no majority, certify nothing."""
    assert find_certificate(ROSTER, make_ballots(ROSTER, *votes)) is None


def test_two_certificates_cannot_exist_at_five() -> None:
    """Members 1 and 2 sign twice: mere majorities would certify two decisions, all outside S do not (attacks A5)."""
    left = make_ballots(ROSTER, ((), ONE), ((), ONE), ((), ONE), None, None)
    right = make_ballots(ROSTER, None, ((), TWO), ((), TWO), ((), TWO), ((), TWO))
    assert len(left) >= ROSTER.majority
    assert len(right) >= ROSTER.majority
    assert find_certificate(ROSTER, left) is None
    assert find_certificate(ROSTER, right) is None


def test_certificates_of_one_recovery_are_unique_under_synchrony() -> None:
    """Exhaustively for three members: no honest vote is needed by two certificates that differ (attacks A5)."""
    roster = make_roster(3)
    options = [None, ((), ONE), ((), TWO), ((2,), ONE), ((2,), TWO)]
    # Members 0 and 1 are honest, vote once, and never call each other silent; member 2 shows anything to each.
    for first in options:
        for second in options:
            found = {
                certificate[:2]
                for shown in options
                if (certificate := find_certificate(roster, make_ballots(roster, first, second, shown)))
            }
            assert len(found) <= 1, (first, second, found)


def test_certificate_ignores_ballots_of_strangers() -> None:
    """Only members of the roster certify."""
    ballots = make_ballots(ROSTER, ((3, 4), ONE), ((3, 4), ONE), None, None, None)
    stranger = make_peers(9)[8]
    ballots[stranger] = make_message(stranger, BALLOT, Ballot(PEERS[3:], ONE))
    assert find_certificate(ROSTER, ballots) is None


def test_views_digest_is_of_a_set_in_roster_order() -> None:
    """Arrival order does not matter; one view less does."""
    view = make_view(AGGREGATE, COMMIT, EVERYONE, overdue=False)
    views = {peer: make_message(peer, Stage(0, 2, Phase.VIEW), view) for peer in PEERS}
    assert compute_views_digest(views) == compute_views_digest(dict(reversed(views.items())))
    assert compute_views_digest(views) != compute_views_digest({peer: views[peer] for peer in PEERS[:4]})


def test_same_bytes_twice_are_no_equivocation() -> None:
    """A re-sent message is not a second one; another slot is not the same."""
    first, second = make_equivocation(REVEAL, PEERS[0]).first, make_equivocation(REVEAL, PEERS[0]).second
    assert is_equivocation(first, second)
    assert not is_equivocation(first, first)
    assert not is_equivocation(first, make_equivocation(REVEAL, PEERS[1]).second)
    assert not is_equivocation(first, make_equivocation(REVEAL._replace(attempt=3), PEERS[0]).second)
