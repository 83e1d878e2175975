"""Attestations: what was asked for and by whom, and that no majority held it."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace as alter
from tests.swarm.audit.asking import UNMARKED, attest, attest_aggregates
from tests.swarm.audit.world import World, collect, expect, last

from btard.rules.evidence import AttestProof, Cause, DepartureKind
from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Aggregate, Attest, Phase, Publish, Transcript
from btard.rules.relays import Relays
from btard.wire import sign_message

REMOVAL = DepartureKind.REMOVAL
Build = Callable[[], World]


@pytest.mark.parametrize("held", [3, 4])
def test_unattested_slice_removes_who_withheld_it(make_world: Build, held: int) -> None:
    """Three of six attest: it was never published; four: it was."""
    world = make_world()
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, attest(world, last(world), held))
    expect(world, "" if held == 3 else "may have held")


@pytest.mark.parametrize("held", [3, 4])
def test_unattested_aggregate_removes_its_aggregator(make_world: Build, held: int) -> None:
    """The same holds for aggregates, in the later serial."""
    world = make_world()
    world.depart(world.parts[1].aggregator, REMOVAL, Cause.WITHHOLDING, attest_aggregates(world, held))
    expect(world, "" if held == 3 else "may have held")


def test_attestations_cannot_be_left_out(make_world: Build) -> None:
    """Three attestations of six, all negative, prove nothing about the others'."""
    world = make_world()
    proof = attest(world, last(world), 3)
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, alter(proof, attests=proof.attests[3:5]))
    expect(world, "may have held")


@pytest.mark.parametrize("is_relay", [True, False])
def test_between_a_marked_pair_the_relay_is_accused(make_world: Build, is_relay: bool) -> None:
    """What the first aggregator lacks of a marked partner, it should have had from their relay."""
    world = make_world()
    partner, first = last(world), next(part.aggregator for part in world.parts if part.aggregator != last(world))
    marks = Marks().with_pairs([make_pair(first, partner)])
    relay = Relays(world.seals[-1].q, world.roster, marks).between(first, partner)
    assert relay is not None
    accused = relay if is_relay else partner
    world.depart(accused, REMOVAL, Cause.WITHHOLDING, attest(world, partner, 3, marks))
    expect(world, "" if is_relay else "about somebody else")


@pytest.mark.parametrize("shown", ["fewer", "more", "one with itself"])
def test_marks_of_a_complaint_are_those_of_the_publications(make_world: Build, shown: str) -> None:
    """A ledger that changes the marks, and so whom a complaint is about, is found out."""
    world = make_world()
    first, second = world.roster.members[:2]
    marks = Marks().with_pairs([make_pair(first, second)])
    proof = attest(world, last(world), 3, Marks() if shown == "more" else marks)
    pairs = {"fewer": (), "more": ((first, second),), "one with itself": ((first, first),)}[shown]
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, alter(proof, marks=pairs))
    expect(world, "marks somebody with itself" if shown == "one with itself" else "other pairs were marked")


def test_attestation_about_somebody_else_removes_nobody(make_world: Build) -> None:
    """The complaint that nobody could confirm was about another member."""
    world = make_world()
    proof = attest(world, last(world), 0)
    world.depart(last(world, 2), REMOVAL, Cause.WITHHOLDING, proof)
    expect(world, "about somebody else")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index": 1}, "about somebody else"),
        ({"index": 2}, "no such complaint"),
        ({"complaints": ()}, "holds no AGGREGATE"),
        ({"publications": ()}, "holds no PUBLISH"),
    ],
)
def test_attestation_needs_its_complaint(make_world: Build, changes: dict[str, Any], words: str) -> None:
    """Which complaint was answered follows from the messages that complained."""
    world = make_world()
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, alter(attest(world, last(world), 0), **changes))
    expect(world, words)


def test_no_complaint_is_left_out(make_world: Build) -> None:
    """One AGGREGATE less would renumber the complaints."""
    world = make_world()
    proof = attest(world, last(world), 0)
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, alter(proof, complaints=proof.complaints[1:]))
    expect(world, "lacks a member's AGGREGATE")


def test_complaint_after_the_fact_was_not_answered(make_world: Build) -> None:
    """A colluder that complains later, about whom it likes, does so beside the attestations."""
    world = make_world()
    proof = attest(world, last(world), 0)
    colluder = world.parts[0].aggregator
    victim = next(peer for peer in world.start.members if peer not in (colluder, last(world)))
    place = world.start.members.index(colluder)
    envelope = sign_message(
        world.keys[colluder],
        world.config.run_id,
        world.roster.digest,
        world.stage(Phase.AGGREGATE),
        b"",
        Aggregate(b"", 0.0, (victim,), b"n" * 32, ()),
    ).envelope
    complaints = (*proof.complaints[:place], envelope, *proof.complaints[place + 1 :])
    world.depart(victim, REMOVAL, Cause.WITHHOLDING, alter(proof, complaints=complaints))
    expect(world, "other complaints")


def test_publications_follow_one_transcript(make_world: Build) -> None:
    """Publications that follow different messages were never agreed on."""
    world = make_world()
    stray = last(world)
    aggregate = Aggregate(b"r" * 32, 0.0, (), b"n" * 32, ())
    complaining = world.say_all(Phase.AGGREGATE, lambda peer: aggregate)
    messages = [
        world.say(peer, Phase.PUBLISH, Publish(UNMARKED), b"o" * 32 if peer == stray else complaining.digest)
        for peer in world.start.members
    ]
    published = Transcript(world.stage(Phase.PUBLISH), tuple(messages))
    attests = world.say_all(Phase.ATTEST, lambda peer: Attest((False,)), published.digest)
    proof = AttestProof(0, (), collect(complaining), collect(published), collect(attests))
    world.depart(last(world), REMOVAL, Cause.WITHHOLDING, proof)
    expect(world, "follow different messages")
