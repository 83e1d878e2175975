"""Each kind of proof: it convicts whom it should, and nobody else."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from tests.swarm.audit.asking import attest
from tests.swarm.audit.column import OpenedColumn
from tests.swarm.audit.world import World, collect, expect, last

from btard.identity import PeerId
from btard.rules.evidence import (
    Cause,
    CertificateProof,
    Departure,
    DepartureKind,
    MarksProof,
    StateProof,
)
from btard.rules.marks import Marks, compute_marks_digest, make_pair, sort_pairs
from btard.rules.messages import Agree, Phase, Reveal
from btard.wire import MAX_MESSAGE, open_message, prove_equivocation, sign_message

BAN, REMOVAL = DepartureKind.BAN, DepartureKind.REMOVAL
Play = Callable[[Any], Departure]


# --- equivocation ---


@pytest.mark.parametrize("same", [True, False])
def test_equivocation_is_two_messages_for_one_slot(make_world: Any, same: bool) -> None:
    """Two different COMMITs convict; the same one twice does not."""
    world = make_world()
    proof = world.equivocate(last(world))
    proof = msgspec.structs.replace(proof, second=proof.first) if same else proof
    world.depart(last(world), BAN, Cause.EQUIVOCATION, proof)
    expect(world, "do not contradict" if same else "")


def test_equivocation_of_another_peer_convicts_nobody(make_world: Any) -> None:
    """The messages must be the departed's own."""
    world = make_world()
    world.depart(last(world), BAN, Cause.EQUIVOCATION, world.equivocate(last(world, 2)))
    expect(world, "somebody else's")


def test_messages_of_another_run_convict_nobody(make_world: Any) -> None:
    """A proof made of another run's messages does not open."""
    world = make_world()
    culprit = world.keys[last(world)]
    pair = [
        sign_message(culprit, b"o" * 32, b"r" * 32, world.stage(Phase.REVEAL), b"", Reveal(nonce, ()))
        for nonce in (b"1" * 32, b"2" * 32)
    ]
    world.depart(last(world), BAN, Cause.EQUIVOCATION, prove_equivocation(*pair))
    expect(world, "another run")


# --- broken reveals ---


@pytest.mark.parametrize("phase", [Phase.REVEAL, Phase.CONFIRM])
@pytest.mark.parametrize("kept", [True, False])
def test_reveal_must_match_its_promise(make_world: Any, phase: Phase, kept: bool) -> None:
    """Another nonce than the promised one convicts, the promised one does not, in both draws."""
    world = make_world()
    nonce = world.nonce(last(world), phase) if kept else b"x" * 32
    world.depart(last(world), BAN, Cause.BROKEN_REVEAL, world.break_reveal(last(world), phase, nonce))
    expect(world, "the promised one" if kept else "")


def test_promise_and_reveal_belong_to_one_attempt(make_world: Any) -> None:
    """A promise of one attempt says nothing about the next one's reveal."""
    world = make_world()
    old = world.break_reveal(last(world), Phase.REVEAL)
    world.attempt += 1
    new = world.break_reveal(last(world), Phase.REVEAL)
    mixed = msgspec.structs.replace(new, commitment=old.commitment)
    world.depart(last(world), BAN, Cause.BROKEN_REVEAL, mixed)
    expect(world, "do not belong together")


# --- marked pairs ---


def mark_last(world: World, partners: int, **changes: Any) -> MarksProof:
    """All members agree that the last one is marked with the first ``partners``."""
    pairs = [make_pair(last(world), peer) for peer in world.roster.members[:partners]]
    marks = Marks().with_pairs(pairs)
    agree = Agree(compute_marks_digest(marks))
    agrees = world.say_all(Phase.AGREE, lambda peer: agree, b"t" * 32)
    return msgspec.structs.replace(MarksProof(sort_pairs(marks.pairs), collect(agrees)), **changes)


@pytest.mark.parametrize(("partners", "words"), [(2, ""), (1, "at most f members")])
def test_more_than_f_marked_partners_remove(make_world: Any, partners: int, words: str) -> None:
    """The run bears one Byzantine member: only that one can have failed two others."""
    world = make_world()
    world.depart(last(world), REMOVAL, Cause.TOO_MANY_MARKS, mark_last(world, partners))
    expect(world, words)


def test_marks_of_another_member_remove_nobody(make_world: Any) -> None:
    """Each of its partners has one mark."""
    world = make_world()
    world.depart(last(world, 2), REMOVAL, Cause.TOO_MANY_MARKS, mark_last(world, 3))
    expect(world, "at most f members")


@pytest.mark.parametrize("agreed", [3, 4])
def test_marks_are_agreed_on_by_more_than_half(make_world: Any, agreed: int) -> None:
    """Three of six AGREEs are not enough."""
    world = make_world()
    proof = mark_last(world, 3)
    proof = msgspec.structs.replace(proof, agrees=proof.agrees[:agreed])
    world.depart(last(world), REMOVAL, Cause.TOO_MANY_MARKS, proof)
    expect(world, "too few members agree" if agreed == 3 else "")


def test_marks_shown_are_those_agreed_on(make_world: Any) -> None:
    """A ledger cannot add pairs to what its members signed."""
    world = make_world()
    marks = tuple((low, high) for low, high in zip(world.roster.members, world.roster.members[1:], strict=False))
    world.depart(last(world), REMOVAL, Cause.TOO_MANY_MARKS, mark_last(world, 3, marks=marks))
    expect(world, "too few members agree")


def test_nobody_is_marked_with_itself_in_a_proof(make_world: Any) -> None:
    """A forged pair of one is a problem, not a crash of the audit."""
    world = make_world()
    proof = mark_last(world, 3, marks=((last(world), last(world)),))
    world.depart(last(world), REMOVAL, Cause.TOO_MANY_MARKS, proof)
    expect(world, "marks somebody with itself")


def test_marks_are_agreed_on_in_the_attempt_of_the_removal(make_world: Any) -> None:
    """What was agreed on earlier may have changed since."""
    world = make_world()
    proof = mark_last(world, 3)
    world.attempt += 1
    world.depart(last(world), REMOVAL, Cause.TOO_MANY_MARKS, proof)
    expect(world, "another attempt")


# --- recoveries ---


def test_certificate_removes_the_silent(make_world: Any) -> None:
    """More than half agree on what they hold, and nobody holds the message of the silent one."""
    world = make_world()
    world.depart(last(world), REMOVAL, Cause.SILENCE, world.recover(last(world)))
    expect(world, "")


def test_certificate_of_the_largest_views_is_kept(make_world: Any) -> None:
    """Members that fill their VIEWs up to what the wire carries cannot make the evidence unreadable."""
    world = make_world()
    proof = world.recover(last(world), supplied=(b"x" * (MAX_MESSAGE // 2 - 2048), b"y" * (MAX_MESSAGE // 2 - 2048)))
    assert len(proof.views[0]) > MAX_MESSAGE - 4096
    world.depart(last(world), REMOVAL, Cause.SILENCE, proof)
    assert [item.proof for item in world.ledger.departures()] == [proof]
    expect(world, "")


def test_certificate_of_a_round_that_we_were_not_in_yet(make_world: Any) -> None:
    """Who left in our round, which is not sealed here, is in the roster of no later recovery."""
    world = make_world()
    banned, silent = last(world), last(world, 2)
    world.depart(banned, BAN, Cause.EQUIVOCATION, world.equivocate(banned))
    world.ahead = 1
    world.depart(silent, REMOVAL, Cause.SILENCE, world.recover(silent))
    expect(world, "")


def test_certificate_before_the_deadline_removes_nobody(make_world: Any) -> None:
    """At least f+1 views must say that the deadline had passed."""
    world = make_world()
    world.depart(last(world), REMOVAL, Cause.SILENCE, world.recover(last(world), overdue=False))
    expect(world, "decided otherwise")


@pytest.mark.parametrize("missing", ["ballots", "views"])
def test_certificate_is_complete(make_world: Any, missing: str) -> None:
    """One ballot or view less is no certificate."""
    world = make_world()
    proof = world.recover(last(world))
    cut = msgspec.structs.replace(proof, **{missing: getattr(proof, missing)[1:]})
    world.depart(last(world), REMOVAL, Cause.SILENCE, cut)
    expect(world, "no certificate")


def test_certificate_belongs_to_its_attempt(make_world: Any) -> None:
    """Ballots of an earlier attempt remove nobody in a later one."""
    world = make_world()
    proof: CertificateProof = world.recover(last(world))
    world.attempt += 1
    world.depart(last(world), REMOVAL, Cause.SILENCE, proof)
    expect(world, "another attempt")


# --- states ---


@pytest.mark.parametrize(("common", "words"), [(5, ""), (4, ""), (3, "no state has a majority")])
def test_other_state_is_one_that_more_than_half_do_not_share(make_world: Any, common: int, words: str) -> None:
    """The departed differs from the state of a majority; a tie removes nobody."""
    world = make_world()
    camp = world.start.members[:common]
    proof = world.commit_states(lambda peer: b"s" * 32 if peer in camp else b"o" * 32)
    world.depart(last(world), REMOVAL, Cause.OTHER_STATE, proof)
    expect(world, words)


def test_state_of_the_majority_removes_nobody(make_world: Any) -> None:
    """Who shares the common state is not removed, nor who is not heard."""
    world = make_world()
    proof: StateProof = world.commit_states(lambda peer: b"s" * 32)
    world.depart(last(world), REMOVAL, Cause.OTHER_STATE, proof)
    expect(world, "holds the state of the majority")


# --- columns ---


def play_column(world: Any, cause: Cause, *, cheat: bool = True, index: int = 2, **changes: Any) -> PeerId:
    """Record a column in which the aggregate or one report is wrong, and the ban that follows."""
    liar = last(world) if cause is Cause.FALSE_REPORT and cheat else None
    bend = (lambda values: values + 1.0) if cause is Cause.WRONG_AGGREGATE and cheat else None
    opened = OpenedColumn.build(world, index, bend, liar)
    culprit = opened.aggregator if cause is Cause.WRONG_AGGREGATE else last(world)
    proof = msgspec.structs.replace(opened.proof, **{name: change(opened.proof) for name, change in changes.items()})
    world.depart(culprit, BAN, cause, proof, opened.blobs)
    return PeerId(culprit)


@pytest.mark.parametrize(
    ("cause", "words"), [(Cause.WRONG_AGGREGATE, "aggregate is right"), (Cause.FALSE_REPORT, "report is true")]
)
@pytest.mark.parametrize("cheat", [True, False])
def test_column_convicts_only_the_guilty(make_world: Any, cause: Cause, words: str, cheat: bool) -> None:
    """An honest column convicts neither its aggregator nor a contributor."""
    world = make_world()
    play_column(world, cause, cheat=cheat)
    expect(world, "" if cheat else words)


def test_one_slice_settles_a_report(make_world: Any) -> None:
    """A report dispute shows the accused's slice and report alone, beside the messages of all."""
    world = make_world()
    play_column(
        world,
        Cause.FALSE_REPORT,
        slices=lambda proof: proof.slices[-1:],
        checks=lambda proof: proof.checks[-1:],
    )
    expect(world, "")


@pytest.mark.parametrize("cheat", [True, False])
def test_whoever_reports_something_on_an_empty_part_lies(make_world: Any, cheat: bool) -> None:
    """Where there are fewer chunks than members a part is empty: its projections are zeros, and no slice is proven."""
    world = make_world(16)
    empty = next(part.index for part in world.parts if not part.elements)
    play_column(world, Cause.FALSE_REPORT, cheat=cheat, index=empty)
    expect(world, "" if cheat else "report is true")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slices": lambda proof: proof.slices[1:]}, "slice is missing"),
        ({"slices": lambda proof: (*proof.slices, proof.slices[0])}, "shows a slice twice"),
        ({"commits": lambda proof: proof.commits[1:]}, "COMMIT is missing"),
        ({"commits": lambda proof: proof.commits[:1] + proof.commits[2:]}, "COMMIT is missing"),
        ({"reason": lambda proof: b"r" * 32}, "follow other commitments"),
        ({"aggregates": lambda proof: proof.aggregates[1:]}, "AGGREGATE is missing"),
        ({"q": lambda proof: b"q" * 32}, "not that of the seal"),
        ({"first": lambda proof: proof.first[1:]}, "not that of the seal"),
        ({"remaining": lambda proof: proof.remaining[1:]}, "not that of the attempt"),
        ({"part": lambda proof: 3}, "wrong length"),
        ({"part": lambda proof: 6}, "no such part"),
        ({"attempt": lambda proof: 1}, "another attempt"),
        ({"round": lambda proof: 0}, "no seal before"),
        ({"aggregate": lambda proof: proof.slices[0].blob}, "aggregate is not the committed one"),
        ({"aggregate": lambda proof: b"?" * 32}, "missing or altered"),
    ],
)
def test_altered_column_is_refused(make_world: Any, changes: dict[str, Any], words: str) -> None:
    """Every piece of a column's proof is tied to a commitment or a seal."""
    world = make_world()
    play_column(world, Cause.WRONG_AGGREGATE, **changes)
    expect(world, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reveals": lambda proof: proof.reveals[1:]}, "REVEAL is missing"),
        ({"checks": lambda proof: proof.reveals}, "not of one stage"),
        ({"checks": lambda proof: proof.checks[:-1]}, "report is missing"),
        ({"slices": lambda proof: proof.slices[:-1]}, "report is missing"),
    ],
)
def test_altered_report_is_refused(make_world: Any, changes: dict[str, Any], words: str) -> None:
    """A report is false only in the directions that all revealed, and against its author's own slice."""
    world = make_world()
    play_column(world, Cause.FALSE_REPORT, **changes)
    expect(world, words)


@pytest.mark.parametrize(
    ("cause", "phase", "words"),
    [
        (Cause.WRONG_AGGREGATE, Phase.COMMIT, "follow other commitments"),
        (Cause.FALSE_REPORT, Phase.AGGREGATE, "follow other aggregates"),
        (Cause.FALSE_REPORT, Phase.REVEAL, "not the promised one"),
    ],
)
def test_message_signed_after_the_fact_convicts_nobody(make_world: Any, cause: Cause, phase: Phase, words: str) -> None:
    """A colluder that signs another commitment, aggregate or nonce later does not make the departed's own wrong."""
    world = make_world()
    opened = OpenedColumn.build(world, 2)
    colluder = opened.aggregator if phase is Phase.AGGREGATE else last(world, 2)
    field = {Phase.COMMIT: "commits", Phase.AGGREGATE: "aggregates", Phase.REVEAL: "reveals"}[phase]
    messages = list(getattr(opened.proof, field))
    place = world.start.members.index(colluder)
    old = open_message(world.config.run_id, messages[place])
    other = {
        Phase.COMMIT: lambda: world.commit(colluder, b"o" * 32),
        Phase.AGGREGATE: lambda: msgspec.structs.replace(old.payload, norm=0.0),
        Phase.REVEAL: lambda: Reveal(b"o" * 32, ()),
    }[phase]()
    key, run_id = world.keys[colluder], world.config.run_id
    messages[place] = sign_message(key, run_id, old.roster, old.slot.stage, old.previous, other).envelope
    culprit = opened.aggregator if cause is Cause.WRONG_AGGREGATE else last(world)
    proof = msgspec.structs.replace(opened.proof, **{field: tuple(messages)})
    world.depart(culprit, BAN, cause, proof, opened.blobs)
    expect(world, words)


def test_swapped_slices_are_refused(make_world: Any) -> None:
    """A slice proves itself against the root of its own contributor."""
    world = make_world()

    def swap(proof: Any) -> Any:
        first, second, *others = proof.slices
        return (msgspec.structs.replace(first, blob=second.blob), second, *others)

    play_column(world, Cause.WRONG_AGGREGATE, slices=swap)
    expect(world, "not the committed one")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e31])
def test_aggregate_that_is_not_finite_is_wrong(make_world: Any, value: float) -> None:
    """NaN, an infinity or a huge number under a signed root counts as zeros, which is not what the slices give."""
    world = make_world()
    opened = OpenedColumn.build(world, 2, lambda values: torch.full_like(values, value))
    world.depart(opened.aggregator, BAN, Cause.WRONG_AGGREGATE, opened.proof, opened.blobs)
    expect(world, "")


# --- causes ---


@pytest.mark.parametrize(
    ("kind", "cause", "words"),
    [
        (BAN, Cause.FALSE_GRADIENT, "no proof of false-gradient"),
        (BAN, Cause.EQUIVOCATION, "no proof of equivocation"),
        (REMOVAL, Cause.SILENCE, "no proof of silence"),
        (REMOVAL, Cause.EQUIVOCATION, "no reason for a removal"),
        (BAN, Cause.SILENCE, "no reason for a ban"),
        (DepartureKind.GOODBYE, Cause.SILENCE, "no reason for a goodbye"),
        (BAN, Cause.OTHER_STATE, "no reason for a ban"),
        (DepartureKind.GOODBYE, Cause.GOODBYE, ""),
        (REMOVAL, Cause.WITHHOLDING, "no proof of withholding"),
    ],
)
def test_cause_needs_its_proof(make_world: Any, kind: DepartureKind, cause: Cause, words: str) -> None:
    """Nobody is banned without a proof of the right kind, and each cause has its way of leaving."""
    world = make_world()
    world.depart(last(world), kind, cause, None)
    expect(world, words)


def test_proof_of_another_cause_is_refused(make_world: Any) -> None:
    """Attestations do not show a false gradient."""
    world = make_world()
    world.depart(last(world), BAN, Cause.FALSE_GRADIENT, attest(world, last(world), 0))
    expect(world, "no proof of false-gradient")
