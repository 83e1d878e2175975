"""
A peer's place in the run as bytes: from where an attempt at a round is begun again after a restart.

The record holds everything of ``State`` and ``Work`` that decided what this attempt is, but for the
vectors. It is stored with the first message signed in the attempt; what the attempt itself computes
and collects is worked out again.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace
from torch import Tensor

from btard.identity import PeerId
from btard.rules.admission import Check
from btard.rules.admission import Work as CandidateWork
from btard.rules.config import RunConfig
from btard.rules.disputes import Dispute, DisputeKind
from btard.rules.draws import Assignment
from btard.rules.marks import Marks, Pair, make_pair, sort_pairs
from btard.rules.messages import Bytes32, Count, OptionalDigest, Report
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature
from btard.swarm.state import State, Work
from btard.swarm.workload import OptimizerState
from btard.wire import compute_seal_digest, decode, encode

MAX_RECORD = 16 * 1024 * 1024
"""Largest record, in bytes: a ban list of 65,536 and every pair of 256 members fit."""
Pairs = tuple[tuple[Bytes32, Bytes32], ...]
Members = tuple[Bytes32, ...]


class DisputeRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A dispute that was settled in the round; ``accuser`` is empty and ``part`` -1 where there is none."""

    kind: DisputeKind
    round: Count
    accused: Bytes32
    accuser: OptionalDigest
    part: Annotated[int, Meta(ge=-1)]


class CheckRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who redoes which candidate's gradient of a round, and what the candidate says of it."""

    checker: Bytes32
    candidate: Bytes32
    round: Count
    report: Report


class WorkRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where an attempt begins: the state that its round starts from, then what earlier attempts led to."""

    seal: Seal
    first_attempt: Count
    first_roster: Members
    first_banned: Members
    chain: OptionalDigest
    assignments: Pairs
    exempt: tuple[tuple[Count, Count], ...]
    first_marks: Pairs
    attempt: Count
    roster: Members
    banned: Members
    reason: OptionalDigest
    is_sealed: bool
    signatures: tuple[SealSignature, ...]
    settled: tuple[DisputeRecord, ...]
    reopen: tuple[Count, ...]
    marks: Pairs
    later_pairs: Pairs
    awaited_pairs: Pairs
    serial: Count
    newcomers: Members
    checks: tuple[CheckRecord, ...]
    due: tuple[CheckRecord, ...]
    dismissed: Members
    common: Pairs

    @property
    def round(self) -> int:
        """The round that is begun."""
        return self.seal.round + 1


def encode_work(work: Work, serial: int) -> bytes:
    """Return the record of the attempt that ``work`` is in; ``serial`` counts its recoveries."""
    return encode(_record_work(work, serial))


def encode_place(work: Work) -> bytes:
    """Return the record as all members tell it to a newcomer: without what each may have come to in its own way.

    A pair that a recovery marked between two rounds was there for some as this one began, and for others right after
    that; in force it is for all.
    """
    record = _record_work(work, 0)
    return encode(replace(record, first_marks=record.marks))


def _record_work(work: Work, serial: int) -> WorkRecord:
    state = work.state
    return WorkRecord(
        state.seal,
        state.attempt,
        state.roster.members,
        tuple(sorted(state.banned)),
        state.chain,
        tuple((pair.validator, pair.target) for pair in state.assignments),
        tuple(sorted(state.exempt.items())),
        sort_pairs(state.marks.pairs),
        work.attempt,
        work.roster.members,
        tuple(sorted(work.banned)),
        work.reason,
        work.sealed,
        tuple(work.signatures),
        tuple(sorted(map(_record_dispute, work.settled), key=encode)),
        tuple(work.reopen),
        sort_pairs(work.marks.pairs),
        sort_pairs(work.later_pairs),
        sort_pairs(work.awaited_pairs),
        serial,
        tuple(sorted(state.newcomers)),
        _record_checks(state.checks),
        _record_checks(state.due),
        tuple(sorted(work.dismissed)),
        sort_pairs(work.common.pairs),
    )


def decode_work(data: bytes) -> WorkRecord:
    """Return a record as it was stored.

    Raises:
        RemoteProtocolError: the bytes are none.
    """
    record: WorkRecord = decode(data, WorkRecord, limit=MAX_RECORD)
    return record


def _record_dispute(dispute: Dispute) -> DisputeRecord:
    part = -1 if dispute.part is None else dispute.part
    return DisputeRecord(dispute.kind, dispute.round, dispute.accused, dispute.accuser or b"", part)


def _record_checks(checks: Sequence[Check]) -> tuple[CheckRecord, ...]:
    return tuple(CheckRecord(item.checker, item.work.candidate, item.work.round, item.work.report) for item in checks)


def _open_checks(records: Sequence[CheckRecord]) -> tuple[Check, ...]:
    return tuple(
        Check(PeerId(item.checker), CandidateWork(PeerId(item.candidate), item.round, item.report)) for item in records
    )


def _open_dispute(record: DisputeRecord) -> Dispute:
    accuser = PeerId(record.accuser) if record.accuser else None
    part = None if record.part < 0 else record.part
    return Dispute(record.kind, record.round, PeerId(record.accused), accuser, part)


def open_state(record: WorkRecord, parameters: Tensor, optimizer: OptimizerState) -> State:
    """Return the state that the record's round starts from, with its vectors."""
    return State(
        round=record.round,
        attempt=record.first_attempt,
        roster=open_roster(record.first_roster),
        parameters=parameters,
        optimizer=optimizer,
        seal=record.seal,
        seal_digest=compute_seal_digest(record.seal),
        chain=record.chain,
        banned=frozenset(map(PeerId, record.first_banned)),
        assignments=tuple(Assignment(PeerId(one), PeerId(other)) for one, other in record.assignments),
        exempt=dict(record.exempt),
        marks=Marks(_open_pairs(record.first_marks)),
        newcomers=frozenset(map(PeerId, record.newcomers)),
        checks=_open_checks(record.checks),
        due=_open_checks(record.due),
    )


def open_work(config: RunConfig, record: WorkRecord, state: State, previous: Work | None) -> Work:
    """Return the work on the record's attempt as it began; nothing is collected yet."""
    work = Work(config, state, previous)
    work.attempt, work.roster = record.attempt, open_roster(record.roster)
    work.banned, work.reason = frozenset(map(PeerId, record.banned)), record.reason
    work.sealed, work.signatures = record.is_sealed, record.signatures
    work.settled, work.reopen = {_open_dispute(item) for item in record.settled}, list(record.reopen)
    work.marks, work.common = Marks(_open_pairs(record.marks)), Marks(_open_pairs(record.common))
    work.dismissed = frozenset(map(PeerId, record.dismissed))
    work.later_pairs, work.awaited_pairs = _open_pairs(record.later_pairs), _open_pairs(record.awaited_pairs)
    return work


def open_roster(members: Members) -> Roster:
    """Return the roster of recorded members."""
    return Roster(tuple(PeerId(member) for member in members))


def _open_pairs(pairs: Pairs) -> frozenset[Pair]:
    return frozenset(make_pair(PeerId(one), PeerId(other)) for one, other in pairs)
