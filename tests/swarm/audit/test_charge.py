"""Charges against candidates: the answers convict whom they should, and every forged variant is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace as alter
from tests.swarm.audit.world import World, collect, expect

from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, ChargeProof, DepartureKind
from btard.rules.messages import Answer, Confirm, Finding, Phase
from btard.rules.seal import Candidate

BAN, REMOVAL = DepartureKind.BAN, DepartureKind.REMOVAL
CANDIDATE = Identity(b"c" * 32).peer_id
Build = Callable[[], World]


def build(make_world: Build) -> World:
    """Six members and a candidate, in round 2."""
    world = make_world()
    world.seal(candidates=(Candidate(CANDIDATE, 1, 0),))
    return world


def charge(world: World, answers: int, finding: Finding) -> ChargeProof:
    """The last member charges the candidate; the first ``answers`` members find this, the others cannot say."""
    checker, camp = world.start.members[-1], world.roster.members[:answers]

    def confirm(peer: PeerId) -> Confirm:
        said = finding if peer in camp else Finding.UNKNOWN
        return Confirm(b"n" * 32, (), (Answer(CANDIDATE, checker, said),))

    return ChargeProof(CANDIDATE, checker, collect(world.say_all(Phase.CONFIRM, confirm)))


@pytest.mark.parametrize("answers", [3, 4])
def test_more_than_half_ban_a_candidate_that_lied(make_world: Build, answers: int) -> None:
    """Four of six answers ban, three do not."""
    world = build(make_world)
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, charge(world, answers, Finding.FALSE), restart=False)
    world.seal()
    expect(world, "" if answers == 4 else "convict nobody")


@pytest.mark.parametrize("answers", [3, 4])
def test_more_than_half_ban_whoever_charged_falsely(make_world: Build, answers: int) -> None:
    """Not to be upheld is not enough: more than half must have found the sample true."""
    world = build(make_world)
    slanderer = world.start.members[-1]
    world.depart(slanderer, BAN, Cause.FALSE_ACCUSATION, charge(world, answers, Finding.TRUE))
    expect(world, "" if answers == 4 else "convict nobody")


@pytest.mark.parametrize("answers", [3, 4])
def test_more_than_half_remove_a_candidate_that_differs(make_world: Build, answers: int) -> None:
    """Another kind of machine is no crime."""
    world = build(make_world)
    world.depart(CANDIDATE, REMOVAL, Cause.INCOMPATIBLE, charge(world, answers, Finding.DIFFERENT))
    expect(world, "" if answers == 4 else "convict nobody")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checker": CANDIDATE}, "convict nobody"),
        ({"candidate": b"a" * 32}, "convict nobody"),
        ({"confirms": ()}, "holds no CONFIRM"),
    ],
)
def test_forged_proof_is_refused(make_world: Build, changes: dict[str, Any], words: str) -> None:
    """One thing of it is another than what happened."""
    world = build(make_world)
    proof = alter(charge(world, 6, Finding.FALSE), **changes)
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, words)


def test_answers_of_another_attempt_prove_nothing(make_world: Build) -> None:
    """A round that was run again is answered again."""
    world = build(make_world)
    proof = charge(world, 6, Finding.FALSE)
    world.attempt += 1
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof, restart=False)
    world.seal()
    expect(world, "of another round or attempt")


def test_whoever_left_before_has_no_answer(make_world: Build) -> None:
    """The CONFIRMs are those of the attempt's roster."""
    world = build(make_world)
    proof = charge(world, 6, Finding.FALSE)
    leaver = world.start.members[1]
    world.depart(leaver, DepartureKind.GOODBYE, Cause.GOODBYE, None)
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, "of another round or attempt")


@pytest.mark.parametrize(
    ("who", "kind", "cause"),
    [
        ("candidate", BAN, Cause.FALSE_ACCUSATION),
        ("candidate", BAN, Cause.FALSE_REPORT),
        ("candidate", REMOVAL, Cause.WITHHOLDING),
        ("candidate", REMOVAL, Cause.INCOMPATIBLE),
        ("checker", BAN, Cause.FALSE_GRADIENT),
        ("checker", BAN, Cause.FALSE_ACCUSATION),
        ("bystander", BAN, Cause.FALSE_GRADIENT),
    ],
)
def test_answers_prove_nothing_else(make_world: Build, who: str, kind: DepartureKind, cause: Cause) -> None:
    """Of a lie about its gradient the candidate is guilty, and nobody of anything else."""
    world = build(make_world)
    members = world.start.members
    peer = {"candidate": CANDIDATE, "checker": members[-1], "bystander": members[1]}[who]
    world.depart(peer, kind, cause, charge(world, 6, Finding.FALSE))
    expect(world, "no proof of" if cause in {Cause.FALSE_REPORT, Cause.WITHHOLDING} else "do not convict it of that")


# --- seals with candidates ---


def promote(world: World, worked: int, **changes: object) -> None:
    """A candidate that has worked so often becomes a member by the next seal."""
    world.seal(candidates=(Candidate(CANDIDATE, 1, 0),))
    for number in range(1, worked + 1):
        world.seal(candidates=(Candidate(CANDIDATE, 1, number),))
    world.seal(roster=tuple(sorted((*world.start.members, CANDIDATE))), **changes)


@pytest.mark.parametrize("missing", [1, 2])
def test_promotion_takes_all_rounds_of_probation(make_world: Build, missing: int) -> None:
    """The last of them is the one that the seal ends."""
    world = make_world()
    promote(world, world.config.probation - missing)
    expect(world, "" if missing == 1 else "joined without having been on probation")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), (Candidate(CANDIDATE, 1, 0),)),
        ((), (Candidate(CANDIDATE, 2, 1),)),
        ((Candidate(CANDIDATE, 1, 0),), (Candidate(CANDIDATE, 1, 2),)),
        ((Candidate(CANDIDATE, 1, 0),), (Candidate(CANDIDATE, 2, 0),)),
        ((Candidate(CANDIDATE, 1, 0),), (Candidate(CANDIDATE, 0, 1),)),
    ],
    ids=["since-before", "worked-at-once", "jumped", "since-moved", "since-back"],
)
def test_probation_goes_step_by_step(
    make_world: Build, before: tuple[Candidate, ...], after: tuple[Candidate, ...]
) -> None:
    """Nobody is older than the seal that admits it, nor does anybody work two rounds in one."""
    world = make_world()
    world.seal(candidates=before)
    world.seal(candidates=after)
    expect(world, "in a way to which nothing leads")


def test_member_is_no_candidate(make_world: Build) -> None:
    """Nobody is both."""
    world = make_world()
    world.seal(candidates=(Candidate(world.start.members[-1], 1, 0),))
    expect(world, "in a way to which nothing leads")
