"""Bounded model checking of the way from one attempt to the next, and that the checker finds each broken rule."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.rules.boundary_model import AGREE, ATTEMPT, FAR, OWN, WHOLE, Rules, explore_boundary
from tests.rules.build import CHECK, make_message, make_position, make_roster

from btard.identity import PeerId
from btard.rules.messages import Holding, Phase, SignedMessage, Stage, View
from btard.rules.recovery import belongs, is_agreed
from btard.rules.roster import Roster


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "least"), [(3, 500), (4, 2_000), (5, 300_000)])
def test_all_members_come_to_one_roster_for_the_next_attempt(size: int, least: int) -> None:
    """Whoever holds the last AGREE, whatever is halted and shown to whom: nobody leaves an attempt by another way."""
    found = explore_boundary(size)
    print(f"boundary, n={size}: {found.states} states")  # noqa: T201
    assert found.disagreement is None
    assert found.states > least


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [3, 4])
def test_cheats_that_claim_to_be_far_ahead_lead_nobody_away(size: int) -> None:
    """The same where they show themselves in another round than anybody is in."""
    assert explore_boundary(size, shown=(WHOLE, OWN, FAR)).disagreement is None


# --- the checker can fail ---


def count_old_votes(message: SignedMessage, roster: Roster, stage: Stage) -> bool:
    """Count whatever a member said in the phase of a recovery, in any attempt."""
    return message.sender in roster and message.slot.stage.phase is stage.phase


def agree_by_tolerated(roster: Roster, views: Mapping[PeerId, View], tolerated: int, attempt: int) -> bool:
    """Take the word of f members for a complete AGREE."""
    return is_agreed(roster, views, tolerated - 1, attempt)


AT_ONCE = "whoever holds all of AGREE goes on at once"
BROKEN = {
    AT_ONCE: Rules(acts_at_once=True),
    "f views make an AGREE complete": replace(Rules(), is_agreed=agree_by_tolerated),
    "a vote of the attempt before counts": replace(Rules(), belongs=count_old_votes),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name in BROKEN for size in (3, 5) if (name, size) != (AT_ONCE, 3)]
)
def test_broken_boundary_is_found(size: int, name: str) -> None:
    """Each rule is needed: without it two honest members can go on with different rosters, or think that they may.

    At n = 3 a cheat and the one honest member that is left behind agree on nobody's silence: f views are too few.
    """
    assert explore_boundary(size, BROKEN[name]).disagreement is not None


# --- single rules ---


def show(stage: Stage, *digests: bytes, position: Stage | None = None) -> View:
    """A view of a member that holds these messages of a stage."""
    at = make_position(position or stage)
    return View(at, False, (Holding(make_position(stage), digests),), (), (), b"", (), resumed=False)


ALL, OTHER = (b"1" * 32, b"2" * 32, b"3" * 32), (b"1" * 32, b"2" * 32, b"4" * 32)


@pytest.mark.parametrize(
    ("views", "agreed"),
    [
        ([show(AGREE, *ALL), show(AGREE, *ALL)], True),
        ([show(AGREE, *ALL), show(AGREE, *ALL[:2], b"")], False),
        ([show(AGREE, *ALL), show(AGREE, *OTHER)], False),
        ([show(AGREE, *ALL[:2]), show(AGREE, *ALL[:2])], False),
        ([show(CHECK, *ALL), show(CHECK, *ALL)], False),
        ([show(AGREE._replace(attempt=1), *ALL), show(AGREE._replace(attempt=1), *ALL)], False),
        ([show(AGREE, *ALL, position=CHECK), show(AGREE, *ALL, position=CHECK)], False),
    ],
)
def test_an_attempt_is_over_if_more_than_f_members_in_it_hold_one_whole_agree(views: list[View], agreed: bool) -> None:
    """Neither a part, nor different ones, nor another stage, nor that of the attempt before ends it."""
    roster = make_roster(3)
    assert is_agreed(roster, dict(zip(roster.members, views, strict=False)), 1, ATTEMPT) is agreed


def test_one_member_that_shows_a_whole_agree_twice_is_one_member() -> None:
    """Holdings repeated in a view add nothing."""
    roster = make_roster(3)
    view = show(AGREE, *ALL)
    assert not is_agreed(roster, {roster.members[0]: replace_holdings(view, view.holdings * 2)}, 1, ATTEMPT)


def replace_holdings(view: View, holdings: tuple[Holding, ...]) -> View:
    """A view with other holdings."""
    return View(view.position, view.overdue, holdings, (), (), b"", (), resumed=False)


def test_a_word_counts_in_its_own_stage_and_roster_only() -> None:
    """Not in another attempt or serial, not before another roster, and not that of a stranger."""
    roster, stage = make_roster(3), Stage(0, ATTEMPT, Phase.VIEW, 1)
    message = make_message(roster.members[0], stage, show(AGREE, *ALL), roster.digest)
    assert belongs(message, roster, stage)
    assert not belongs(message, roster, stage._replace(attempt=ATTEMPT + 1))
    assert not belongs(message, roster, stage._replace(serial=0))
    assert not belongs(message, make_roster(4), stage)
    stranger = make_message(make_roster(4).members[3], stage, show(AGREE, *ALL), roster.digest)
    assert not belongs(stranger, roster, stage)
