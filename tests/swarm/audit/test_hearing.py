"""Votes: they convict whom they should, of what was asked, and nobody else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as alter
from tests.swarm.audit.asking import accuse, ask, name, reopen, suspect, vote
from tests.swarm.audit.world import World, expect, last

from btard.identity import Identity
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Check, Confirm, Opinion, Phase, Vote
from btard.wire import sign_message

BAN, REMOVAL = DepartureKind.BAN, DepartureKind.REMOVAL
Build = Callable[[], World]


def build(make_world: Build) -> World:
    """Six members, of whom four are more than half, in round 2: there is a round before it."""
    world = make_world()
    world.seal()
    return world


# --- who is convicted ---


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("gradient", Cause.FALSE_GRADIENT),
        ("gradient", Cause.FALSE_REPORT),
        ("report", Cause.FALSE_REPORT),
        ("column", Cause.WRONG_AGGREGATE),
        ("column", Cause.FALSE_REPORT),
        ("reopened", Cause.WRONG_AGGREGATE),
    ],
)
@pytest.mark.parametrize("guilty", [3, 4])
def test_more_than_half_convict_the_accused(make_world: Build, kind: str, cause: Cause, guilty: int) -> None:
    """Four of six votes ban, three do not."""
    world = build(make_world)
    question = ask(world, kind)
    world.depart(question.accused, BAN, cause, vote(world, question, guilty, Opinion((question.accused,), (), ())))
    expect(world, "" if guilty == 4 else "do not convict")


@pytest.mark.parametrize(("kind", "cause"), [("gradient", Cause.FALSE_ACCUSATION), ("report", Cause.FALSE_NAMING)])
@pytest.mark.parametrize("guilty", [3, 4])
def test_accusation_that_is_not_upheld_bans_its_author(make_world: Build, kind: str, cause: Cause, guilty: int) -> None:
    """Up to three of six votes for it, an accusation is false; with four it is true."""
    world = build(make_world)
    question = ask(world, kind)
    assert question.accuser
    world.depart(question.accuser, BAN, cause, vote(world, question, guilty, Opinion((question.accused,), (), ())))
    expect(world, "" if guilty == 3 else "uphold its accusation")


def test_votes_cannot_be_left_out_against_an_accuser(make_world: Build) -> None:
    """Without the votes that uphold it, an accusation is not shown to be false."""
    world = build(make_world)
    question = accuse(world)
    assert question.accuser
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()), without=world.start.members[:4])
    world.depart(question.accuser, BAN, Cause.FALSE_ACCUSATION, proof)
    expect(world, "uphold its accusation")


@pytest.mark.parametrize("kind", ["column", "reopened"])
def test_withholding_in_a_dispute_removes(make_world: Build, kind: str) -> None:
    """Whom more than half call silent is removed; nobody is banned for it."""
    world = build(make_world)
    question = ask(world, kind)
    silent = next(peer for peer in world.start.members if peer != question.accused)
    world.depart(silent, REMOVAL, Cause.WITHHOLDING, vote(world, question, 4, Opinion((), (silent,), ())))
    expect(world, "")


def test_votes_are_counted_once(make_world: Build) -> None:
    """The same vote twice is no majority."""
    world = build(make_world)
    question = accuse(world)
    proof = vote(world, question, 3, Opinion((question.accused,), (), ()))
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, alter(proof, votes=(*proof.votes, proof.votes[0])))
    expect(world, "counts a VOTE message twice")


def test_votes_of_strangers_do_not_count(make_world: Build) -> None:
    """Who has left or never belonged has no vote."""
    world = build(make_world)
    question = suspect(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    stage, roster = world.stage(Phase.VOTE, 1), world.roster.digest
    extra = sign_message(Identity(b"?" * 32), world.config.run_id, roster, stage, b"", Vote(())).envelope
    world.depart(question.accused, BAN, Cause.WRONG_AGGREGATE, alter(proof, votes=(*proof.votes, extra)))
    expect(world, "was not a member")


# --- which dispute it was ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "taste"}, "was another one"),
        ({"kind": "report"}, "was another one"),
        ({"kind": "column"}, "had to be settled first"),
        ({"round": 0}, "was another one"),
        ({"round": 2}, "was another one"),
        ({"index": 0}, "was another one"),
        ({"index": 2}, "no such dispute"),
        ({"accuser": b"?" * 32}, "was another one"),
        ({"accuser": b""}, "was another one"),
        ({"accused": b"?" * 32}, "was another one"),
        ({"votes": ()}, "holds no VOTE"),
        ({"publications": ()}, "holds no DISPUTE_PUBLISH"),
    ],
)
def test_dispute_is_the_one_that_was_voted_on(make_world: Build, changes: dict[str, Any], words: str) -> None:
    """What a proof says about a dispute must follow from the messages that opened it."""
    world = build(make_world)
    question = accuse(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, alter(proof, **changes))
    expect(world, words)


@pytest.mark.parametrize(("kind", "cause"), [("gradient", Cause.FALSE_ACCUSATION), ("report", Cause.FALSE_NAMING)])
def test_votes_about_one_dispute_are_not_cited_about_another(make_world: Build, kind: str, cause: Cause) -> None:
    """The first accusation is upheld and the second is not: its author cannot be exchanged for the first one's."""
    world = build(make_world)
    question = ask(world, kind)
    proof = vote(world, question, 0, Opinion((), (), ()))
    other = next(peer for peer in world.start.members if peer not in (question.accused, question.accuser))
    world.depart(other, BAN, cause, alter(proof, accuser=other))
    expect(world, "was another one")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commits": 1}, "other commitments"),
        ({"earlier": 1}, "an earlier COMMIT is missing"),
        ({"commits": 6}, "holds no COMMIT"),
        ({"earlier": 6}, "holds no COMMIT"),
    ],
)
def test_no_commitment_is_left_out(make_world: Build, changes: dict[str, int], words: str) -> None:
    """The votes name all COMMITs that could accuse, and the draw needs all of the round before."""
    world = build(make_world)
    question = accuse(world)
    shorter = {field: getattr(question.opening, field)[count:] for field, count in changes.items()}
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, alter(proof, opening=alter(proof.opening, **shorter)))
    expect(world, words)


def test_reason_of_the_attempt_is_part_of_what_was_asked(make_world: Build) -> None:
    """Another reason for the attempt gives another digest than the publications follow."""
    world = build(make_world)
    question = accuse(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    opening = alter(proof.opening, reason=b"r" * 32)
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, alter(proof, opening=opening))
    expect(world, "other commitments")


@pytest.mark.parametrize("shown", [True, False])
def test_draw_of_validators_takes_the_loud_first(make_world: Build, shown: bool) -> None:
    """Where a column proved right, its CHECKs tell who came first; without them the draw is another one."""
    world = build(make_world)
    question = accuse(world, opened=3)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    proof = proof if shown else alter(proof, opening=alter(proof.opening, checks=()))
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, "" if shown else "no such dispute")


@pytest.mark.parametrize(
    ("opened", "count", "words"),
    [(3, 1, "lacks a member's CHECK"), (6, 0, "no such column"), (2, 0, "no such dispute")],
)
def test_claimed_column_must_fit_its_reports(make_world: Build, opened: int, count: int, words: str) -> None:
    """All CHECKs are needed, and the loud of another column are others."""
    world = build(make_world)
    question = accuse(world, opened=3)
    opening = alter(question.opening, opened=opened, checks=question.opening.checks[count:])  # type: ignore[union-attr]
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, alter(proof, opening=opening))
    expect(world, words)


def test_answers_follow_the_publications_shown(make_world: Build) -> None:
    """Votes do not count together with publications that they did not follow."""
    world = build(make_world)
    question = accuse(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    shorter = alter(proof, publications=proof.publications[1:])
    world.depart(question.accused, BAN, Cause.FALSE_GRADIENT, shorter)
    expect(world, "follow other publications")


def test_votes_of_another_question_are_refused(make_world: Build) -> None:
    """Votes after CONFIRM cannot be cited for an accusation in COMMITs, nor the other way round."""
    world = build(make_world)
    accusation, naming = accuse(world), name(world)
    opinion = Opinion((accusation.accused,), (), ())
    proof = vote(world, naming, 4, opinion)
    forged = alter(
        proof,
        kind="gradient",
        round=accusation.round,
        accused=accusation.accused,
        accuser=accusation.accuser or b"",
        opening=accusation.opening,
    )
    world.depart(accusation.accused, BAN, Cause.FALSE_GRADIENT, forged)
    expect(world, "cast after CONFIRM")


def test_second_confirm_after_the_fact_opens_nothing(make_world: Build) -> None:
    """A colluder that signs another CONFIRM later cannot put a naming of its own under the votes."""
    world = build(make_world)
    question = name(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    colluder = last(world)
    late = world.say(colluder, Phase.CONFIRM, Confirm(b"n" * 32, (world.me,))).envelope
    confirms = (*proof.opening.confirms[:-1], late)  # type: ignore[union-attr]
    forged = alter(proof, accused=world.me, accuser=colluder, index=0, opening=alter(proof.opening, confirms=confirms))
    world.depart(world.me, BAN, Cause.FALSE_REPORT, forged)
    expect(world, "other messages")


# --- columns ---


def test_column_may_be_opened_for_large_norms(make_world: Build) -> None:
    """Verification 2 opens a column whose sums are right but whose norms are not."""
    world = build(make_world)
    question = suspect(world, unbalanced=False)
    world.depart(
        question.accused, BAN, Cause.WRONG_AGGREGATE, vote(world, question, 4, Opinion((question.accused,), (), ()))
    )
    expect(world, "")


def test_column_that_was_not_due_is_refused(make_world: Build) -> None:
    """The reports call for the column of part 2, so its aggregator cannot be exchanged for another one."""
    world = build(make_world)
    question = suspect(world)
    other = world.parts[3].aggregator
    proof = vote(world, question, 4, Opinion((other,), (), ()))
    world.depart(other, BAN, Cause.WRONG_AGGREGATE, alter(proof, accused=other))
    expect(world, "do not call for this column")


@pytest.mark.parametrize(
    ("field", "words"),
    [("confirms", "lacks a member's CONFIRM"), ("checks", "lacks a member's CHECK"), ("aggregates", "AGGREGATE")],
)
def test_column_needs_all_reports(make_world: Build, field: str, words: str) -> None:
    """A sum of reports from which one is missing says nothing."""
    world = build(make_world)
    question = suspect(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    opening = alter(proof.opening, **{field: getattr(proof.opening, field)[1:]})
    world.depart(question.accused, BAN, Cause.WRONG_AGGREGATE, alter(proof, opening=opening))
    expect(world, words)


def test_reports_are_those_that_were_confirmed(make_world: Build) -> None:
    """A CHECK signed after the fact is not what the CONFIRMs follow."""
    world = build(make_world)
    question = suspect(world)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    late = world.say(last(world), Phase.CHECK, Check((), b"o" * 32)).envelope
    opening = alter(proof.opening, checks=(*proof.opening.checks[:-1], late))
    world.depart(question.accused, BAN, Cause.WRONG_AGGREGATE, alter(proof, opening=opening))
    expect(world, "other reports")


def test_reopened_column_waits_for_accusations(make_world: Build) -> None:
    """Votes on an accusation cannot be cited about a column of the accused's."""
    world = build(make_world)
    question = replace(accuse(world), kind="column", accuser=None, index=0, count=1)
    proof = vote(world, question, 4, Opinion((question.accused,), (), ()))
    world.depart(question.accused, BAN, Cause.WRONG_AGGREGATE, proof)
    expect(world, "had to be settled first")


def test_reopened_column_has_an_aggregator(make_world: Build) -> None:
    """Whoever did not aggregate cannot be the accused of a column."""
    world = build(make_world)
    proof = vote(world, reopen(world), 4, Opinion((last(world),), (), ()))
    world.depart(last(world), BAN, Cause.WRONG_AGGREGATE, alter(proof, accused=b"?" * 32))
    expect(world, "did not aggregate anything")
