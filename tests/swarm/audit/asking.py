"""Questions put to the members of a synthetic run, and their answers: votes and attestations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.swarm.audit.world import World, collect

from btard.identity import Context, PeerId, digest
from btard.rules.draws import draw_round_validators
from btard.rules.evidence import AttestProof, CommitOpening, ConfirmOpening, VoteProof
from btard.rules.marks import Marks, compute_marks_digest, sort_pairs
from btard.rules.messages import (
    Aggregate,
    AnyPayload,
    Attest,
    Check,
    Commit,
    Confirm,
    DisputePublish,
    Opinion,
    Phase,
    Publish,
    Report,
    Reveal,
    Stage,
    Transcript,
    Verdict,
    Vote,
)
from btard.rules.roster import Roster
from btard.wire import sign_message

NONE = Opinion((), (), ())
UNMARKED = compute_marks_digest(Marks())
"""What members say about marked pairs where there are none."""


@dataclass(frozen=True)
class Question:
    """A dispute: its place among ``count``, what opened it, and the digest that publications on it follow."""

    kind: str
    round: int
    accused: PeerId
    accuser: PeerId | None
    index: int
    count: int
    opening: CommitOpening | ConfirmOpening
    asked: bytes
    serial: int


def ask(world: World, kind: str) -> Question:
    """A question on which members vote in this attempt, the second of two unless it is about a column."""
    return {
        "gradient": accuse,
        "report": name,
        "column": suspect,
        "reopened": reopen,
    }[kind](world)


def accuse(world: World, opened: int | None = None) -> Question:
    """Both validators of the round before accuse their targets; its part ``opened`` made the last member loud."""
    earlier = commit_earlier(world)
    checks = () if opened is None else collect(check_earlier(world, opened))
    loud = world.start.members[-1:] if checks else ()
    pairs = draw_round_validators(world.config, world.seals[-1].q, world.start, world.start.members, loud)
    verdicts = {pair.validator: (Verdict(pair.target, True),) for pair in pairs}
    commits = world.say_all(Phase.COMMIT, lambda peer: world.commit(peer, verdicts=verdicts.get(peer, ())))
    opening = CommitOpening(b"", collect(commits), collect(earlier), checks, opened or 0)
    asked = digest(Context.TRANSCRIPT, b"", commits.digest)
    return Question("gradient", world.round - 1, pairs[1].target, pairs[1].validator, 1, 2, opening, asked, 0)


def commit_earlier(world: World) -> Transcript:
    """The COMMITs of the round before, of those who are left."""
    return say_earlier(world, Phase.COMMIT, lambda peer: Commit(b"g" * 32, False, (), b"s" * 32, b"s" * 64, False))


def check_earlier(world: World, opened: int) -> Transcript:
    """The CHECKs of the round before, in which the last member is loud in one part."""

    def report(peer: PeerId, index: int) -> Report:
        is_loud = peer == world.start.members[-1] and index == opened
        return Report(world.config.projections * (0.0,), 1e6 if is_loud else 0.0)

    count = len(world.start)
    return say_earlier(
        world, Phase.CHECK, lambda peer: Check(tuple(report(peer, index) for index in range(count)), b"n" * 32)
    )


def say_earlier(world: World, phase: Phase, payload: Callable[[PeerId], AnyPayload]) -> Transcript:
    """A message of every present member for the end of the round before."""
    before, roster = world.seals[-2], Roster.of([PeerId(peer) for peer in world.seals[-2].roster])
    stage = Stage(world.round - 1, before.attempt if phase is Phase.COMMIT else world.seals[-1].attempt, phase)
    signed = roster if phase is Phase.COMMIT else world.start
    run_id = world.config.run_id
    return Transcript(
        stage,
        tuple(
            sign_message(world.keys[peer], run_id, signed.digest, stage, b"", payload(peer))
            for peer in world.start.members
        ),
    )


def name(world: World) -> Question:
    """The first two aggregators name one contributor each."""
    first, second = (part.aggregator for part in world.parts[:2])
    named = [peer for peer in world.roster.members if peer not in (first, second)][-2:]
    names = {first: (named[0],), second: (named[1],)}
    confirms = world.say_all(Phase.CONFIRM, lambda peer: Confirm(b"n" * 32, names.get(peer, ())))
    opening = ConfirmOpening(collect(confirms), (), ())
    return Question("report", world.round, named[1], second, 1, 2, opening, confirms.digest, 1)


def suspect(world: World, *, unbalanced: bool = True) -> Question:
    """The projections reported on part 2 do not sum to zero; or else they do, but its norms are large."""

    def report(index: int) -> Report:
        value, norm = (0.1, 1.0) if unbalanced else (0.0, 1e6)
        return Report(world.config.projections * (value if index == 2 else 0.0,), norm if index == 2 else 0.0)

    parts = world.parts
    aggregates = world.say_all(Phase.AGGREGATE, lambda peer: Aggregate(b"r" * 32, 0.0, (), b"n" * 32, ()))
    reports = tuple(report(part.index) for part in parts)
    checks = world.say_all(Phase.CHECK, lambda peer: Check(reports, b"n" * 32))
    confirms = world.say_all(Phase.CONFIRM, lambda peer: Confirm(b"n" * 32, ()), checks.digest)
    opening = ConfirmOpening(collect(confirms), collect(checks), collect(aggregates))
    return Question("column", world.round, parts[2].aggregator, None, 0, 1, opening, confirms.digest, 1)


def reopen(world: World) -> Question:
    """A column of the round before is opened again, when nobody is accused any more."""
    commits = world.say_all(Phase.COMMIT, world.commit)
    opening = CommitOpening(b"r" * 32, collect(commits), collect(commit_earlier(world)), (), 0)
    asked = digest(Context.TRANSCRIPT, b"r" * 32, commits.digest)
    return Question("column", world.round - 1, world.start.members[-1], None, 0, 1, opening, asked, 0)


def vote(world: World, question: Question, guilty: int, opinion: Opinion, without: Sequence[PeerId] = ()) -> VoteProof:
    """The first ``guilty`` members hold ``opinion`` on a question, the others none."""
    camp, serial = world.roster.members[:guilty], question.serial
    published = world.say_all(Phase.DISPUTE_PUBLISH, lambda peer: DisputePublish(), question.asked, serial)

    def answer(peer: PeerId) -> Vote:
        held = opinion if peer in camp else NONE
        return Vote(tuple(held if index == question.index else NONE for index in range(question.count)))

    votes = world.say_all(Phase.VOTE, answer, published.digest, serial)
    return VoteProof(
        question.kind,
        question.round,
        question.accused,
        question.accuser or b"",
        question.index,
        question.opening,
        collect(published),
        collect(votes.without(list(without))),
    )


def attest(world: World, accused: PeerId, held_by: int, marks: Marks = Marks()) -> AttestProof:  # noqa: B008 - frozen
    """Two aggregators lack slices; ``held_by`` members hold what the first asks ``accused`` for, all the other."""
    first, second = [part.aggregator for part in world.parts if part.aggregator != accused][:2]
    lacking = {first: (accused,), second: (first,)}
    complaining = world.say_all(
        Phase.AGGREGATE,
        lambda peer: Aggregate(b"" if peer in lacking else b"r" * 32, 0.0, lacking.get(peer, ()), b"n" * 32, ()),
    )
    return attest_about(world, complaining, held_by, 0, marks)


def attest_aggregates(world: World, held_by: int) -> AttestProof:
    """Somebody lacks the aggregates of parts 1 and 2; ``held_by`` members hold the first, all the second."""
    complaining = world.say_all(
        Phase.REVEAL, lambda peer: Reveal(b"n" * 32, (1, 2) if peer == world.parts[0].aggregator else ())
    )
    return attest_about(world, complaining, held_by, 1)


def attest_about(
    world: World,
    complaining: Transcript,
    held_by: int,
    serial: int,
    marks: Marks = Marks(),  # noqa: B008 - frozen
) -> AttestProof:
    """Attestations about the first of two complaints; the second is not in doubt."""
    camp, publish = world.roster.members[:held_by], Publish(compute_marks_digest(marks))
    published = world.say_all(Phase.PUBLISH, lambda peer: publish, complaining.digest, serial)
    attests = world.say_all(Phase.ATTEST, lambda peer: Attest((peer in camp, True)), published.digest, serial)
    return AttestProof(0, sort_pairs(marks.pairs), collect(complaining), collect(published), collect(attests))
