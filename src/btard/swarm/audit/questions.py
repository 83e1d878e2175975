"""
What attestations and votes were about, derived anew from the messages that opened it.

Answers name the publications before them, and these name the transcript that asked, so whoever
answered has signed the question too: no message can be added to it or left out of it afterwards.
Where something beyond that transcript counts, it is said below what stays a claim.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from btard.identity import Context, PeerId, digest
from btard.rules.checks import find_loud_contributors, find_part_to_open, is_well_formed
from btard.rules.complaints import Complaint, find_check_complaints, find_gather_complaints, find_scatter_complaints
from btard.rules.disputes import Dispute, DisputeKind, find_accusations, find_namings
from btard.rules.draws import Assignment, draw_round_validators
from btard.rules.evidence import AttestProof, CommitOpening, ConfirmOpening, VoteProof
from btard.rules.marks import compute_marks_digest
from btard.rules.messages import Aggregate, Check, Phase, Publish, Report, Stage, Transcript, Vote
from btard.rules.parts import Part
from btard.rules.relays import Relays
from btard.rules.roster import Roster
from btard.rules.validity import is_valid_check, is_valid_reveal
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import (
    find_contributors,
    find_parts,
    find_roster,
    open_commits,
    open_stage,
    read_marks,
    require,
    require_roster,
)

COMPLAINING = (Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK)
"""Where complaints are made, by the serial of the attestations that answer them."""


def find_complaints(chain: Chain, attests: Transcript, proof: AttestProof) -> tuple[Complaint, ...]:
    """Return the complaints that attestations answer, in their order.

    Raises:
        Unproven: the proof shows other messages than those that were answered.
    """
    stage = attests.stage
    asked = _find_asked(chain, attests, proof.publications, Phase.PUBLISH)
    require(stage.serial < len(COMPLAINING), "there is no such place for complaints")
    complaining = _open_members(chain, proof.complaints, stage, COMPLAINING[stage.serial])
    require(complaining.digest == asked, "the attestations are about other complaints than those shown")
    parts, relays = find_parts(chain, stage.round, stage.attempt), _find_relays(chain, stage, proof)
    if complaining.stage.phase is Phase.AGGREGATE:
        return find_scatter_complaints(complaining, parts, relays)
    if complaining.stage.phase is Phase.CHECK:
        said = [m for m in complaining.messages if isinstance(m.payload, Check) and m.payload.missing]
        require(all(is_valid_check(message, (), parts, 0) for message in said), "a complaint does not count")
        return find_check_complaints(complaining, parts, relays)
    require(all(is_valid_reveal(message, len(parts)) for message in complaining.messages), "a complaint does not count")
    return find_gather_complaints(complaining, parts, relays)


def _find_relays(chain: Chain, stage: Stage, proof: AttestProof) -> Relays:
    """The relays of an attempt: every publication names the marked pairs that it was made under."""
    published = open_stage(chain, proof.publications, Phase.PUBLISH)
    payloads = [message.payload for message in published.messages]
    marks = read_marks(proof.marks)
    expected = compute_marks_digest(marks)
    agreed = all(isinstance(payload, Publish) and payload.marks == expected for payload in payloads)
    require(agreed, "other pairs were marked than those shown")
    seal = chain.seal_before(stage.round)
    assert seal is not None
    return Relays(seal.q, find_roster(chain, stage.round, stage.attempt), marks)


def find_disputes(chain: Chain, votes: Transcript, proof: VoteProof) -> Sequence[Dispute]:
    """Return the disputes that votes answer, in their order.

    Raises:
        Unproven: the proof shows other messages than those that were answered, or these open nothing of the kind.
    """
    asked = _find_asked(chain, votes, proof.publications, Phase.DISPUTE_PUBLISH)
    if isinstance(proof.opening, CommitOpening):
        require(votes.stage.serial == 0, "the votes were cast after CONFIRM, not after COMMIT")
        return _find_opened_by_commits(chain, votes, proof, proof.opening, asked)
    require(votes.stage.serial == 1, "the votes were cast after COMMIT, not after CONFIRM")
    return _find_opened_by_confirms(chain, votes.stage, proof, proof.opening, asked)


def _find_asked(chain: Chain, answers: Transcript, publications: Sequence[bytes], phase: Phase) -> bytes:
    """The digest that every answer follows, by way of the publications."""
    published = open_stage(chain, publications, phase)
    require(published.stage == answers.stage._replace(phase=phase), "its publications are of another attempt")
    require_roster(published, find_roster(chain, answers.stage.round, answers.stage.attempt))
    follows = all(message.previous == published.digest for message in answers.messages)
    require(follows, "the answers follow other publications than those shown")
    asked = {message.previous for message in published.messages}
    require(len(asked) == 1, "its publications follow different messages")
    return asked.pop()


def _open_members(chain: Chain, envelopes: Sequence[bytes], where: Stage, phase: Phase) -> Transcript:
    """One message each of all members of an attempt, for a phase of it."""
    transcript = open_stage(chain, envelopes, phase)
    roster = find_roster(chain, where.round, where.attempt)
    wanted = Stage(where.round, where.attempt, phase)
    require(transcript.stage == wanted, f"its {phase.name} messages are of another attempt")
    require_roster(transcript, roster)
    require(len(transcript.messages) == len(roster), f"it lacks a member's {phase.name} message")
    return transcript


def _open_asking(chain: Chain, stage: Stage, envelopes: Sequence[bytes], reason: bytes, asked: bytes) -> Transcript:
    commits = open_commits(chain, envelopes, stage.round)
    shown = digest(Context.TRANSCRIPT, reason, commits.digest)
    require(shown == asked, "the votes are about other commitments than those shown")
    return commits


# --- after COMMIT: accusations by validators, and the columns that these reopened ---


def _find_opened_by_commits(
    chain: Chain, votes: Transcript, proof: VoteProof, opening: CommitOpening, asked: bytes
) -> Sequence[Dispute]:
    """A column is opened only when every accusation is settled; for which false report stays a claim."""
    stage, about = votes.stage, votes.stage.round - 1
    commits = _open_asking(chain, stage, opening.commits, opening.reason, asked)
    if about == chain.first and about:
        return _believe(proof, votes)
    accusations = find_accusations(commits, _draw(chain, about, opening), about)
    if proof.kind != DisputeKind.COLUMN:
        return accusations
    remaining = find_roster(chain, stage.round, stage.attempt)
    require(not any(item.accused in remaining for item in accusations), "an accusation had to be settled first")
    return [_describe_column(_find_parts_of_seal(chain, about), about, proof)]


def _believe(proof: VoteProof, votes: Transcript) -> Sequence[Dispute]:
    """What was disputed about the round before the owner was a member stays a claim: it has none of its messages."""
    counts = Counter(len(m.payload.opinions) for m in votes.messages if isinstance(m.payload, Vote))
    accuser = PeerId(proof.accuser) if proof.accuser else None
    described = Dispute(DisputeKind(proof.kind), proof.round, PeerId(proof.accused), accuser)
    return [described] * counts.most_common(1)[0][0]


def _draw(chain: Chain, number: int, opening: CommitOpening) -> tuple[Assignment, ...]:
    """Who validated whom of a round: the draw of its seal, over its contributors.

    That the column called opened was opened, and proved right, is a claim: no signature shows it.
    """
    seal, after = chain.seal_before(number + 1), chain.roster_before(number + 1)
    require(seal and after and number, f"round {number} has no validators")
    assert seal is not None
    assert after is not None
    members = after.without([PeerId(peer) for peer in chain.newcomers_in(number + 1)])
    commits = open_commits(chain, opening.earlier, number)
    leavers = frozenset(map(PeerId, chain.leavers_in(number + 1)))
    committed = Roster.of(members.everyone - chain.newcomers_in(number) | leavers)
    require([message.sender for message in commits.messages] == list(committed.members), "an earlier COMMIT is missing")
    contributors = find_contributors(commits)
    loud = _find_loud(chain, number, opening, contributors) if opening.checks else ()
    return draw_round_validators(chain.config, seal.q, members, contributors, loud)


def _find_loud(chain: Chain, number: int, opening: CommitOpening, contributors: Sequence[PeerId]) -> tuple[PeerId, ...]:
    parts, stage = _find_parts_of_seal(chain, number), _find_last_stage(chain, number)
    reports = _open_reports(chain, opening.checks, stage, len(parts))
    require(set(reports) == set(contributors), "the reports are not those of the contributors")
    require(opening.opened < len(parts), "there was no such column")
    return find_loud_contributors(reports, parts[opening.opened])


def _find_last_stage(chain: Chain, number: int) -> Stage:
    """Where a sealed round ended."""
    seal = chain.seal_before(number + 1)
    assert seal is not None
    return Stage(number, seal.attempt, Phase.CONFIRM)


def _find_parts_of_seal(chain: Chain, number: int) -> tuple[Part, ...]:
    return find_parts(chain, number, _find_last_stage(chain, number).attempt)


# --- after CONFIRM: reports that aggregators name, and the column that Verification 1 or 2 opens ---


def _find_opened_by_confirms(
    chain: Chain, stage: Stage, proof: VoteProof, opening: ConfirmOpening, asked: bytes
) -> Sequence[Dispute]:
    """Whoever is named contributes, else its namer's CONFIRM would not have counted."""
    confirms = _open_members(chain, opening.confirms, stage, Phase.CONFIRM)
    require(confirms.digest == asked, "the votes are about other messages than those shown")
    parts = find_parts(chain, stage.round, stage.attempt)
    members = find_roster(chain, stage.round, stage.attempt).members
    namings = find_namings(confirms, parts, members, stage.round)
    if namings or proof.kind != DisputeKind.COLUMN:
        return namings
    column = _describe_column(parts, stage.round, proof)
    _require_due(chain, stage, opening, confirms, parts, column.part)
    return [column]


def _describe_column(parts: Sequence[Part], number: int, proof: VoteProof) -> Dispute:
    """The dispute about the one part that the accused reduced."""
    indices = [part.index for part in parts if part.aggregator == proof.accused]
    require(indices, "the accused did not aggregate anything")
    return Dispute(DisputeKind.COLUMN, number, parts[indices[0]].aggregator, part=indices[0])


def _require_due(
    chain: Chain, stage: Stage, opening: ConfirmOpening, confirms: Transcript, parts: Sequence[Part], index: int | None
) -> None:
    """Go on only if the reports call for a column; which parts were exempt from Verification 2 stays a claim."""
    reports = _open_reports(chain, opening.checks, stage, len(parts))
    checks = open_stage(chain, opening.checks, Phase.CHECK)
    follows = all(message.previous == checks.digest for message in confirms.messages)
    require(follows, "the CONFIRMs follow other reports than those shown")
    norms = _open_norms(chain, opening.aggregates, stage)
    tolerated = find_roster(chain, stage.round, stage.attempt).tolerated(chain.config.byzantine_bound)
    others = [part.index for part in parts if part.index != index]
    norms_by_part = [norms[part.aggregator] for part in parts]
    due = find_part_to_open(chain.config, parts, checks, tuple(reports), norms_by_part, tolerated, others)
    require(due == index, "the reports do not call for this column")


def _open_reports(
    chain: Chain, envelopes: Sequence[bytes], where: Stage, parts: int
) -> Mapping[PeerId, tuple[Report, ...]]:
    """The reports of an attempt's contributors; the others' CHECKs hold none."""
    checks = _open_members(chain, envelopes, where, Phase.CHECK)
    reports = {m.sender: m.payload.reports for m in checks.messages if isinstance(m.payload, Check)}
    told = {peer: rows for peer, rows in reports.items() if rows}
    require(not any(m.payload.missing for m in checks.messages), "somebody lacked a part, which ends the attempt")  # type: ignore[union-attr]
    require(
        told and all(is_well_formed(rows, parts, chain.config.projections) for rows in told.values()),
        "a report does not count",
    )
    return told


def _open_norms(chain: Chain, envelopes: Sequence[bytes], where: Stage) -> Mapping[PeerId, float]:
    aggregates = _open_members(chain, envelopes, where, Phase.AGGREGATE)
    norms = {m.sender: m.payload.norm for m in aggregates.messages if isinstance(m.payload, Aggregate)}
    require(all(math.isfinite(norm) and norm >= 0 for norm in norms.values()), "an aggregate does not count")
    return norms
