"""Charges against candidates: the votes convict whom they should, and every forged variant is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace as alter
from tests.swarm.audit.asking import NONE
from tests.swarm.audit.world import World, collect, expect

from btard.identity import Context, Identity, PeerId, digest
from btard.rules.evidence import Cause, ChargeProof, DepartureKind
from btard.rules.messages import DisputePublish, Opinion, Phase, Quotes, Vote
from btard.rules.seal import Candidate

BAN, REMOVAL = DepartureKind.BAN, DepartureKind.REMOVAL
CANDIDATE = Identity(b"c" * 32).peer_id
Build = Callable[[], World]


def build(make_world: Build) -> World:
    """Six members and a candidate, in round 2."""
    world = make_world()
    world.seal(candidates=(Candidate(CANDIDATE, 1, 0),))
    return world


def charge(world: World, votes: int, opinion: Opinion, *, charged: tuple[PeerId, ...] = (CANDIDATE,)) -> ChargeProof:
    """The last member charges the candidate; the first ``votes`` members hold ``opinion``."""
    accuser = world.start.members[-1]

    def commit(peer: PeerId) -> Any:
        return alter(world.commit(peer, b"g" * 32), quotes=Quotes(charged=charged if peer == accuser else ()))

    commits = world.say_all(Phase.COMMIT, commit)
    asked = digest(Context.TRANSCRIPT, b"", commits.digest)
    published = world.say_all(Phase.DISPUTE_PUBLISH, lambda peer: DisputePublish(), asked)
    camp = world.roster.members[:votes]
    cast = world.say_all(Phase.VOTE, lambda peer: Vote((opinion if peer in camp else NONE,)), published.digest)
    shown = map(collect, (commits, published, cast))
    return ChargeProof(1, CANDIDATE, accuser, 0, b"", *shown)


@pytest.mark.parametrize("votes", [3, 4])
def test_more_than_half_ban_a_candidate_that_lied(make_world: Build, votes: int) -> None:
    """Four of six votes ban, three do not."""
    world = build(make_world)
    proof = charge(world, votes, Opinion((CANDIDATE,), (CANDIDATE,), ()))
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, "" if votes == 4 else "do not convict")


@pytest.mark.parametrize("votes", [3, 4])
def test_more_than_half_ban_whoever_charged_falsely(make_world: Build, votes: int) -> None:
    """Not to be upheld is not enough: more than half must have found the sample true."""
    world = build(make_world)
    slanderer = world.start.members[-1]
    world.depart(slanderer, BAN, Cause.FALSE_ACCUSATION, charge(world, votes, Opinion((slanderer,), (), ())))
    expect(world, "" if votes == 4 else "do not convict")


@pytest.mark.parametrize("votes", [3, 4])
def test_more_than_half_remove_a_candidate_that_differs(make_world: Build, votes: int) -> None:
    """Another kind of machine is no crime."""
    world = build(make_world)
    proof = charge(world, votes, Opinion((), (CANDIDATE,), ()))
    world.depart(CANDIDATE, REMOVAL, Cause.INCOMPATIBLE, proof)
    expect(world, "" if votes == 4 else "do not convict")


def test_charge_that_nobody_made_convicts_nobody(make_world: Build) -> None:
    """The accuser's own COMMIT must name the candidate."""
    world = build(make_world)
    proof = charge(world, 6, Opinion((CANDIDATE,), (), ()), charged=())
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, "nobody made that charge")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accuser": CANDIDATE}, "nobody made that charge"),
        ({"accused": b"a" * 32}, "nobody made that charge"),
        ({"index": 1}, "do not convict"),
        ({"reason": b"r" * 32}, "other commitments than those shown"),
        ({"commits": ()}, "holds no COMMIT"),
        ({"publications": ()}, "holds no DISPUTE_PUBLISH"),
        ({"votes": ()}, "holds no VOTE"),
    ],
)
def test_forged_proof_is_refused(make_world: Build, changes: dict[str, Any], words: str) -> None:
    """One thing of it is another than what happened."""
    world = build(make_world)
    proof = alter(charge(world, 6, Opinion((CANDIDATE,), (), ())), **changes)
    world.depart(CANDIDATE, BAN, Cause.FALSE_GRADIENT, proof)
    expect(world, words)


def test_accuser_and_accused_cannot_be_swapped(make_world: Build) -> None:
    """A proof that the candidate lied does not ban its checker."""
    world = build(make_world)
    proof, accuser = charge(world, 6, Opinion((CANDIDATE,), (), ())), world.start.members[-1]
    swapped = alter(proof, accused=accuser, accuser=CANDIDATE)
    world.depart(accuser, BAN, Cause.FALSE_GRADIENT, swapped)
    expect(world, "nobody made that charge")


@pytest.mark.parametrize(
    ("kind", "cause", "words"),
    [
        (BAN, Cause.FALSE_ACCUSATION, "no proof of that cause"),
        (BAN, Cause.FALSE_REPORT, "no proof of"),
        (REMOVAL, Cause.WITHHOLDING, "no proof of"),
    ],
)
def test_votes_prove_no_other_cause(make_world: Build, kind: DepartureKind, cause: Cause, words: str) -> None:
    """Of a lie about a gradient a candidate is guilty, and of nothing else."""
    world = build(make_world)
    world.depart(CANDIDATE, kind, cause, charge(world, 6, Opinion((CANDIDATE,), (CANDIDATE,), ())))
    expect(world, words)


def test_bystander_is_not_convicted_by_a_charge(make_world: Build) -> None:
    """Votes against somebody whom the charge was not about come to nothing."""
    world = build(make_world)
    other = world.start.members[1]
    world.depart(other, BAN, Cause.FALSE_GRADIENT, charge(world, 6, Opinion((other,), (), ())))
    expect(world, "about somebody else")


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
