"""
Proofs for the ledger: why somebody leaves, from what a round keeps, so that anyone can check it afterwards.

An answer alone does not say what was asked. A proof by majority therefore holds three transcripts, each
of which names the one before: what opened the question, the publications, and the answers.
"""

from dataclasses import dataclass

import structlog

from btard.identity import Context, digest, short
from btard.rules.admission import Check
from btard.rules.disputes import Dispute, DisputeKind
from btard.rules.evidence import (
    AttestProof,
    ChargeProof,
    ColumnProof,
    CommitOpening,
    ConfirmOpening,
    MarksProof,
    SliceProof,
    VoteProof,
)
from btard.rules.marks import sort_pairs
from btard.rules.messages import Transcript
from btard.swarm.services import Services
from btard.swarm.state import Work, as_bytes, empty_part

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Hearing:
    """Open questions and their answers: the transcript that asks, the publications, the attestations or votes."""

    asked: Transcript
    published: Transcript
    answers: Transcript


def prove_attestations(index: int, work: Work, hearing: Hearing) -> AttestProof:
    """Return the proof that not even half held what complaint ``index`` asked for."""
    transcripts = map(_envelopes, (hearing.asked, hearing.published, hearing.answers))
    return AttestProof(index, sort_pairs(work.marks.pairs), *transcripts)


def prove_marks(work: Work, agrees: Transcript) -> MarksProof:
    """Return the proof of which pairs are marked."""
    return MarksProof(sort_pairs(work.marks.pairs), _envelopes(agrees))


def prove_votes(work: Work, dispute: Dispute, index: int, hearing: Hearing) -> VoteProof:
    """Return the proof of what the votes on dispute ``index`` decided."""
    show = _show_confirms if dispute.round == work.round else _show_commits
    return VoteProof(
        dispute.kind.value,
        dispute.round,
        dispute.accused,
        dispute.accuser or b"",
        index,
        show(work, dispute, hearing.asked),
        _envelopes(hearing.published),
        _envelopes(hearing.answers),
    )


def prove_charge(work: Work, charge: Check) -> ChargeProof:
    """Return the proof of what the answers to a charge against a candidate decided."""
    return ChargeProof(charge.work.candidate, charge.checker, _envelopes(work.confirms))


def _show_confirms(work: Work, dispute: Dispute, confirms: Transcript) -> ConfirmOpening:
    is_column = dispute.kind is DisputeKind.COLUMN
    return ConfirmOpening(
        _envelopes(confirms),
        _envelopes(work.checks) if is_column else (),
        _envelopes(work.aggregates) if is_column else (),
    )


def _show_commits(work: Work, dispute: Dispute, commits: Transcript) -> CommitOpening:
    previous = work.previous
    if previous is None:  # a newcomer has not seen the round that this is about, and has no voice in it
        return CommitOpening(work.reason, _envelopes(commits), (), (), 0)
    opened = _find_opened(work, previous.round)
    checks = () if opened is None else _envelopes(previous.checks)
    return CommitOpening(work.reason, _envelopes(commits), _envelopes(previous.commits), checks, opened or 0)


def _find_opened(work: Work, number: int) -> int | None:
    """The part whose column proved right in round ``number``, if any: its exemption is the newest."""
    until = number + work.config.exemption
    return next((part for part, last in work.state.exempt.items() if last == until), None)


def prove_column(
    services: Services, subject: Work, dispute: Dispute
) -> tuple[ColumnProof, dict[bytes, memoryview]] | None:
    """Return the self-contained proof of an opened column and its blobs, if every slice is held."""
    assert dispute.part is not None
    part = subject.parts[dispute.part]
    wanted = (dispute.accused,) if dispute.kind is DisputeKind.REPORT else subject.contributors
    blobs: dict[bytes, memoryview] = {}
    slices = []
    for peer in wanted:
        piece = services.slices.find_piece(subject.round, subject.root_of(peer), part.chunks)
        if piece is None:
            log.info("no self-contained proof: a slice is not held", contributor=short(peer))
            return None
        slices.append(SliceProof(peer, _name_blob(blobs, as_bytes(piece.values)), piece.proof))
    values = services.parts.get(subject.round, subject.attempt, part, subject.aggregate_root_of(part.aggregator))
    aggregate = _name_blob(blobs, as_bytes(values if values is not None else empty_part()))
    assert subject.checks is not None
    proof = ColumnProof(
        subject.round,
        subject.attempt,
        part.index,
        subject.state.q,
        subject.state.roster.members,
        subject.roster.members,
        subject.reason,
        _envelopes(subject.commits),
        _envelopes(subject.aggregates),
        _envelopes(subject.reveals),
        tuple(subject.checks[peer].envelope for peer in wanted),
        tuple(slices),
        aggregate,
    )
    return proof, blobs


def _name_blob(blobs: dict[bytes, memoryview], data: memoryview) -> bytes:
    name = digest(Context.EVIDENCE, data)  # type: ignore[arg-type]
    blobs[name] = data
    return name


def _envelopes(transcript: Transcript | None) -> tuple[bytes, ...]:
    assert transcript is not None
    return tuple(message.envelope for message in transcript.messages)
