"""Seals and rosters: what a forged chain gets wrong, one thing at a time."""

from typing import Any

import pytest

from btard.identity import Identity
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.seal import SealSignature
from btard.swarm.audit import audit_ledger

GOODBYE = DepartureKind.GOODBYE


def expect(world: Any, *words: str) -> None:
    """Expect a problem with each of these words, and no other."""
    problems = audit_ledger(world.directory).problems
    assert len(problems) == len(words), problems
    assert all(any(word in problem for problem in problems) for word in words), problems


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"previous": b"p" * 32}, "does not follow"),
        ({"run_id": b"r" * 32}, "another run"),
        ({"banned": (b"b" * 32,)}, "the ban list and the departures disagree"),
    ],
)
def test_forged_seal_is_found_though_it_is_signed(make_world: Any, changes: dict[str, Any], words: str) -> None:
    """Signatures of everyone do not make a broken link whole."""
    world = make_world()
    world.seal(**changes)
    expect(world, words)


def test_attempts_never_go_back(make_world: Any) -> None:
    """An attempt number is never used again."""
    world = make_world()
    world.attempt = 3
    world.seal()
    world.attempt = 2
    world.seal()
    expect(world, "attempt is older")


def test_ban_list_only_grows(make_world: Any) -> None:
    """Who was banned stays banned."""
    world = make_world()
    culprit = world.start.members[-1]
    world.depart(culprit, DepartureKind.BAN, Cause.EQUIVOCATION, world.equivocate(culprit))
    world.seal()
    world.seal(banned=())
    expect(world, "no longer banned")


def test_roster_is_sorted(make_world: Any) -> None:
    """The order of a roster is part of what peers agree on."""
    world = make_world()
    world.seal(roster=tuple(reversed(world.start.members)))
    expect(world, "not sorted")


def test_nobody_vanishes_and_nobody_appears(make_world: Any) -> None:
    """Every change of the roster needs a reason in the ledger."""
    world = make_world()
    world.seal(roster=(*world.start.members[:-1], b"\xff" * 32))
    expect(world, "left without a departure", "joined without having been on probation")


def test_who_left_is_gone(make_world: Any) -> None:
    """A departure takes effect in the seal of its round."""
    world = make_world()
    members = world.start.members
    world.depart(members[-1], GOODBYE, Cause.GOODBYE, None)
    world.seal(roster=members)
    expect(world, "left but is still in the roster")


def test_departure_before_its_seal_is_noted(make_world: Any) -> None:
    """A peer may die between a departure and its seal: no fault."""
    world = make_world()
    world.depart(world.start.members[-1], GOODBYE, Cause.GOODBYE, None)
    result = audit_ledger(world.directory)
    assert result.ok
    assert any("not sealed yet" in note for note in result.notes)


@pytest.mark.parametrize(("ahead", "words"), [(1, ()), (2, ("there is no seal before it",))])
def test_departure_of_a_round_that_we_were_not_in_yet(make_world: Any, ahead: int, words: tuple[str, ...]) -> None:
    """A peer a round behind the others learns who left before it has the seal in between; two rounds behind never."""
    world = make_world()
    leaver = world.start.members[-1]
    world.ledger.record_departure(Departure(leaver, world.round + ahead, world.attempt, GOODBYE, Cause.GOODBYE, None))
    expect(world, *words)


@pytest.mark.parametrize(
    ("signers", "words"),
    [(3, ()), (4, ("left but is still in the roster", "the ban list and the departures disagree"))],
)
def test_seal_that_was_taken_back_is_no_fault(make_world: Any, signers: int, words: tuple[str, ...]) -> None:
    """Whoever leaves or dies as its newest round is run again keeps that seal, unsigned; a signed one stands."""
    world = make_world()
    members, number, attempt = world.start.members, world.round, world.attempt
    proof = world.equivocate(members[-1])
    world.seal(signers=members[:signers])
    ban = Departure(members[-1], number, attempt, DepartureKind.BAN, Cause.EQUIVOCATION, proof)
    world.ledger.record_departure(ban)
    expect(world, *words)


@pytest.mark.parametrize(("signers", "words"), [(4, ()), (3, ("more than half",))])
def test_seal_needs_more_than_half(make_world: Any, signers: int, words: tuple[str, ...]) -> None:
    """Four of six signatures seal a round that another one follows; three do not."""
    world = make_world()
    world.seal(signers=world.start.members[:signers])
    world.seal()
    expect(world, *words)


def test_roster_before_the_round_signs(make_world: Any) -> None:
    """The seal of a round in which two left is signed by those who took part in it, the two included."""
    world = make_world()
    members = world.start.members
    world.depart(members[-1], GOODBYE, Cause.GOODBYE, None)
    world.depart(members[-2], GOODBYE, Cause.GOODBYE, None)
    world.seal(signers=members[-4:])
    world.seal(signers=members[:3])
    world.seal()
    expect(world)


def test_signature_of_a_stranger_is_found(make_world: Any) -> None:
    """Only members sign."""
    world = make_world()
    stranger = Identity(b"?" * 32)
    world.keys[stranger.peer_id] = stranger
    world.seal(signers=[*world.start.members, stranger.peer_id])
    expect(world, "was not a member")


def test_false_signature_is_found_even_on_the_newest_seal(make_world: Any) -> None:
    """The newest seal may lack signatures, but not have a false one."""
    world = make_world()
    world.seal(signers=[])
    world.ledger.record_signatures(1, [SealSignature(world.me, b"x" * 64)])
    world.ledger.sync()
    expect(world, "is not valid")


def test_genesis_needs_its_founder(make_world: Any) -> None:
    """Seal 0 without the founder's signature is nobody's, once a round follows."""
    world = make_world()
    world.ledger._database.execute("DELETE FROM signatures")
    world.seal()
    expect(world, "the founder did not sign it")


def test_ledger_before_genesis_is_clean(make_world: Any) -> None:
    """A peer may die before the run starts."""
    world = make_world()
    world.ledger._database.execute("DELETE FROM signatures")
    world.ledger._database.execute("DELETE FROM seals")
    result = audit_ledger(world.directory)
    assert (result.ok, result.seals) == (True, 0)
    assert result.notes == ("there is no seal yet: the run had not started",)


@pytest.mark.parametrize(
    ("attempt", "words"), [(0, ("was not one of its round",)), (1, ()), (4, ("was not one of its round",))]
)
def test_departure_belongs_to_an_attempt_of_its_round(make_world: Any, attempt: int, words: tuple[str, ...]) -> None:
    """Attempts of a round lie between those of the seal before it and its own."""
    world = make_world()
    world.attempt = 1
    world.seal()
    world.attempt = attempt
    world.depart(world.start.members[-1], GOODBYE, Cause.GOODBYE, None)
    world.attempt = 3
    world.seal()
    expect(world, *words)


def test_stranger_cannot_leave(make_world: Any) -> None:
    """A departure of somebody who was no member is forged."""
    world = make_world()
    stranger = Identity(b"?" * 32)
    world.depart(stranger.peer_id, GOODBYE, Cause.GOODBYE, None)
    world.seal()
    expect(world, "was neither a member nor a candidate")
