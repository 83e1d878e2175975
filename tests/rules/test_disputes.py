"""Disputes: who may open one, and who pays (attacks B3, B7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config, make_part, make_roster, make_transcript

from btard.identity import PeerId
from btard.rules.disputes import (
    Dispute,
    DisputeKind,
    find_accusations,
    find_namings,
    find_unowed,
    settle,
    settle_all,
)
from btard.rules.draws import Assignment
from btard.rules.messages import Commit, Confirm, DisputePublish, Opinion, Phase, Stage, Transcript, Verdict, Vote

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
GRADIENT = Dispute(DisputeKind.GRADIENT, 7, accused=A, accuser=B)
REPORT = Dispute(DisputeKind.REPORT, 7, accused=A, accuser=B, part=1)
COLUMN = Dispute(DisputeKind.COLUMN, 7, accused=B, part=1)
NOTHING = Opinion((), (), ())
COMMITS, VOTES = Stage(8, 2, Phase.COMMIT), Stage(8, 2, Phase.VOTE)


def blame(*guilty: PeerId, silent: tuple[PeerId, ...] = (), parts: tuple[int, ...] = ()) -> Opinion:
    """One member's opinion."""
    return Opinion(guilty, silent, parts)


TABLE = [
    ("gradient, upheld", GRADIENT, [blame(A)] * 5, (A,), ()),
    ("gradient, refuted: the accuser pays", GRADIENT, [NOTHING] * 5, (B,), ()),
    ("gradient, three of five", GRADIENT, [blame(A)] * 3 + [NOTHING] * 2, (A,), ()),
    ("gradient, two of five", GRADIENT, [blame(A)] * 2 + [NOTHING] * 3, (B,), ()),
    ("gradient, three agree and two did not vote", GRADIENT, [blame(A)] * 3, (A,), ()),
    ("gradient, two agree and three did not vote", GRADIENT, [blame(A)] * 2, (B,), ()),
    ("report, the naming is right", REPORT, [blame(A)] * 5, (A,), ()),
    ("report, the naming is wrong", REPORT, [NOTHING] * 5, (B,), ()),
    ("report, the namer publishes nothing", REPORT, [blame(silent=(B,))] * 5, (), (B,)),
    ("report, a minority calls the namer silent", REPORT, [blame(silent=(B,))] * 2 + [NOTHING] * 3, (B,), ()),
    ("column, the aggregate is wrong", COLUMN, [blame(B)] * 5, (B,), ()),
    ("column, two reports are false", COLUMN, [blame(C, D)] * 5, (C, D), ()),
    ("column, aggregator and liar together", COLUMN, [blame(B, C)] * 5, (B, C), ()),
    ("column, all is right: nobody accused, nobody pays", COLUMN, [NOTHING] * 5, (), ()),
    ("column, a contributor withholds", COLUMN, [blame(silent=(D,))] * 5, (), (D,)),
    ("banned outweighs removed", COLUMN, [blame(D, silent=(D,))] * 5, (D,), ()),
    ("votes for different culprits do not add up", COLUMN, [blame(C)] * 2 + [blame(D)] * 2 + [NOTHING], (), ()),
]


@pytest.mark.parametrize(
    ("dispute", "opinions", "banned", "removed"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_ruling(dispute: Dispute, opinions: list[Opinion], banned: tuple, removed: tuple) -> None:
    """Conviction needs more than half of the roster; whoever accuses in vain pays."""
    ruling = settle(dispute, opinions, ROSTER)
    assert (ruling.banned, ruling.removed) == (banned, removed)


def test_exactly_half_of_an_even_roster_convicts_nobody() -> None:
    """Two of four are not more than half."""
    roster = make_roster(4)
    assert settle(COLUMN, [blame(B)] * 2 + [NOTHING] * 2, roster).banned == ()
    assert settle(COLUMN, [blame(B)] * 3 + [NOTHING], roster).banned == (B,)


def test_convicted_key_that_has_left_is_banned_all_the_same() -> None:
    """A departed key stays accountable for its last round (attacks A3)."""
    assert settle(GRADIENT, [blame(A)] * 4, ROSTER.without([A])).banned == (A,)


@pytest.mark.parametrize(("votes", "parts"), [(3, (2, 6)), (2, ())])
def test_parts_with_false_reports_are_opened_again_by_majority(votes: int, parts: tuple[int, ...]) -> None:
    """If a false report is convicted, its column is re-opened, and only then (attacks C7)."""
    opinions = [blame(A, parts=(6, 2))] * votes + [blame(A)] * (5 - votes)
    assert settle(GRADIENT, opinions, ROSTER).parts == parts


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=2))
def test_two_cheats_of_five_can_neither_convict_nor_save(lies: list[tuple[bool, bool]]) -> None:
    """Whatever f members vote, three honest opinions decide."""
    cheats = [blame(*[E] * accuse, silent=(D,) * mute) for accuse, mute in lies]
    assert settle(GRADIENT, [blame(A)] * 3 + cheats, ROSTER).banned == (A,)
    assert settle(COLUMN, [NOTHING] * 3 + cheats, ROSTER).banned == ()
    assert settle(COLUMN, [NOTHING] * 3 + cheats, ROSTER).removed == ()


def make_votes(*opinions: tuple[Opinion, ...]) -> Transcript:
    """An agreed transcript of votes, one per member."""
    return make_transcript(VOTES, {peer: Vote(row) for peer, row in zip(ROSTER.members, opinions, strict=True)})


def test_every_dispute_has_its_own_opinion() -> None:
    """Opinions are matched to disputes by their order."""
    rulings = settle_all([GRADIENT, COLUMN], make_votes(*((blame(A), blame(C)),) * 5), ROSTER)
    assert [ruling.dispute for ruling in rulings] == [GRADIENT, COLUMN]
    assert [ruling.banned for ruling in rulings] == [(A,), (C,)]


@pytest.mark.parametrize("bad", [(), (blame(A),), (blame(A),) * 3], ids=["none", "too few", "too many"])
def test_vote_on_another_number_of_disputes_does_not_count(bad: tuple[Opinion, ...]) -> None:
    """Two votes that answer something else leave three, which decide."""
    good = (blame(A), NOTHING)
    rulings = settle_all([GRADIENT, COLUMN], make_votes(good, good, good, bad, bad), ROSTER)
    assert [ruling.banned for ruling in rulings] == [(A,), ()]
    rulings = settle_all([GRADIENT, COLUMN], make_votes(good, good, bad, bad, bad), ROSTER)
    assert [ruling.banned for ruling in rulings] == [(B,), ()]


# --- what nobody owes ---


@pytest.mark.parametrize(
    ("dispute", "speaker", "lacks", "withheld", "unowed"),
    [
        (COLUMN, B, (0, 2), {A, C}, {C}),
        (COLUMN, B, (0, 2), {A}, set()),
        (COLUMN, B, (), {C}, set()),
        (COLUMN, D, (2,), {C}, set()),
        (REPORT, A, (2,), {C}, set()),
        (COLUMN, B, (77,), {C}, set()),
    ],
    ids=["of those who left alone", "others hold it", "nothing lacks", "another says so", "no column", "no such place"],
)
def test_only_the_aggregator_is_let_off_and_only_for_those_who_left(
    dispute: Dispute, speaker: PeerId, lacks: tuple[int, ...], withheld: set[PeerId], unowed: set[PeerId]
) -> None:
    """It says itself that it lacks a slice that nobody else got; what members still owe stays owed (record 31)."""
    published = make_transcript(
        COMMITS._replace(phase=Phase.DISPUTE_PUBLISH),
        {peer: DisputePublish((lacks if peer == speaker else (),)) for peer in (A, B, D, E)},
    )
    assert find_unowed(dispute, published, 0, (A, B, C), withheld, ROSTER.without([C])) == unowed


# --- who may accuse ---


def make_commit(*verdicts: Verdict) -> Commit:
    """A COMMIT with these verdicts."""
    return Commit(b"", False, verdicts, b"s" * 32, b"g" * 64, False)


ASSIGNED = (Assignment(validator=D, target=A), Assignment(validator=E, target=B))


@pytest.mark.parametrize(
    ("verdicts", "opened"),
    [
        ({D: [Verdict(A, guilty=True)]}, [(D, A)]),
        ({D: [Verdict(A, guilty=False)]}, []),
        ({D: [Verdict(B, guilty=True)]}, []),  # another validator's target
        ({C: [Verdict(A, guilty=True)]}, []),  # no validator
        ({D: []}, []),
        ({D: [Verdict(A, guilty=True)], E: [Verdict(B, guilty=True)]}, [(D, A), (E, B)]),
        ({D: [Verdict(A, guilty=False), Verdict(A, guilty=True)]}, [(D, A)]),  # saying both is saying guilty
        ({E: [Verdict(A, guilty=True)], D: [Verdict(B, guilty=True)]}, []),
    ],
    ids=str,
)
def test_only_a_drawn_validator_accuses_and_only_its_own_target(verdicts: dict, opened: list) -> None:
    """Accusations by others, or against others, open nothing."""
    commits = make_transcript(COMMITS, {peer: make_commit(*verdicts.get(peer, ())) for peer in ROSTER.members})
    found = find_accusations(commits, ASSIGNED, 7)
    assert found == tuple(Dispute(DisputeKind.GRADIENT, 7, target, validator) for validator, target in opened)


def test_validator_that_left_accuses_nobody() -> None:
    """If a validator leaves, its check is dropped."""
    commits = make_transcript(COMMITS, {A: make_commit(), E: make_commit(Verdict(B, guilty=True))})
    assert [dispute.accuser for dispute in find_accusations(commits, ASSIGNED, 7)] == [E]


PARTS = tuple(make_part(make_config(), index, peer, 8 * index, 8 * index + 8) for index, peer in enumerate((C, A, B)))


@pytest.mark.parametrize(
    ("named", "opened"),
    [
        ({}, []),
        ({C: [A]}, [(A, C, 0)]),
        ({B: [A], C: [A]}, [(A, C, 0)]),  # one dispute per reporter, on its lowest part
        ({A: [B, C], C: [B]}, [(B, C, 0), (C, A, 1)]),
        ({A: [A]}, []),  # nobody names itself
        ({A: [E]}, []),  # no contributor
        ({D: [A]}, []),  # aggregates nothing
    ],
    ids=str,
)
def test_aggregators_name_false_reports_on_their_own_part(named: dict, opened: list) -> None:
    """A naming opens a report dispute, one for each reporter, in an order that all share (attacks B3)."""
    confirms = make_transcript(
        Stage(7, 2, Phase.CONFIRM), {peer: Confirm(b"n" * 32, tuple(named.get(peer, ()))) for peer in ROSTER.members}
    )
    found = find_namings(confirms, PARTS, [A, B, C, D], 7)
    assert found == tuple(Dispute(DisputeKind.REPORT, 7, accused, accuser, part) for accused, accuser, part in opened)
