"""The steps of an audit, and what it found."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from btard.errors import RemoteProtocolError
from btard.identity import short
from btard.rules.evidence import (
    AttestProof,
    Cause,
    CertificateProof,
    ChargeProof,
    ColumnProof,
    ConclusionProof,
    Departure,
    DepartureKind,
    EquivocationProof,
    MarksProof,
    RevealProof,
    StateProof,
    VoteProof,
)
from btard.rules.messages import Commit, Phase, SignedMessage, Stage
from btard.rules.seal import Seal
from btard.swarm.audit.alone import check_equivocation, check_reveal
from btard.swarm.audit.chain import Chain, find_departure_problems, find_seal_problems, is_sealed
from btard.swarm.audit.column import check_column
from btard.swarm.audit.contents import Contents, Unreadable, read_contents
from btard.swarm.audit.hearing import check_attestations, check_charge, check_votes
from btard.swarm.audit.majority import check_marks, check_state
from btard.swarm.audit.opening import Unproven
from btard.swarm.audit.recoveries import check_certificate, check_conclusion
from btard.wire import is_seal_signed_by, open_message

Opened = tuple[Stage, SignedMessage | RemoteProtocolError]


class Standing(Enum):
    """What a proof rests on."""

    SELF_CONTAINED = "self-contained"
    BY_MAJORITY = "by majority"


@dataclass(frozen=True)
class ProofRule:
    """How one kind of proof is checked: raises Unproven where it does not hold."""

    standing: Standing
    check: Callable[[Chain, Departure, Any], None]


PROOF_RULES: Mapping[type, ProofRule] = {
    EquivocationProof: ProofRule(Standing.SELF_CONTAINED, check_equivocation),
    RevealProof: ProofRule(Standing.SELF_CONTAINED, check_reveal),
    ColumnProof: ProofRule(Standing.SELF_CONTAINED, check_column),
    VoteProof: ProofRule(Standing.BY_MAJORITY, check_votes),
    CertificateProof: ProofRule(Standing.BY_MAJORITY, check_certificate),
    ConclusionProof: ProofRule(Standing.BY_MAJORITY, check_conclusion),
    AttestProof: ProofRule(Standing.BY_MAJORITY, check_attestations),
    StateProof: ProofRule(Standing.BY_MAJORITY, check_state),
    MarksProof: ProofRule(Standing.BY_MAJORITY, check_marks),
    ChargeProof: ProofRule(Standing.BY_MAJORITY, check_charge),
}


@dataclass(frozen=True)
class CauseRule:
    """How one leaves for a cause, and which proofs can show it."""

    kinds: frozenset[DepartureKind]
    proofs: tuple[type, ...]


_BAN = frozenset({DepartureKind.BAN})
_REMOVAL = frozenset({DepartureKind.REMOVAL})
CAUSE_RULES: Mapping[Cause, CauseRule] = {
    Cause.EQUIVOCATION: CauseRule(_BAN, (EquivocationProof, CertificateProof, ConclusionProof)),
    Cause.BROKEN_REVEAL: CauseRule(_BAN, (RevealProof,)),
    Cause.FALSE_GRADIENT: CauseRule(_BAN, (VoteProof, ChargeProof)),
    Cause.FALSE_REPORT: CauseRule(_BAN, (ColumnProof, VoteProof)),
    Cause.WRONG_AGGREGATE: CauseRule(_BAN, (ColumnProof, VoteProof)),
    Cause.FALSE_ACCUSATION: CauseRule(_BAN, (VoteProof, ChargeProof)),
    Cause.FALSE_NAMING: CauseRule(_BAN, (VoteProof,)),
    Cause.SILENCE: CauseRule(_REMOVAL, (CertificateProof, ConclusionProof)),
    Cause.WITHHOLDING: CauseRule(_REMOVAL, (AttestProof, VoteProof)),
    Cause.TOO_MANY_MARKS: CauseRule(_REMOVAL, (MarksProof, CertificateProof, ConclusionProof)),
    Cause.OTHER_STATE: CauseRule(_REMOVAL, (StateProof,)),
    Cause.INCOMPATIBLE: CauseRule(_REMOVAL, (ChargeProof,)),
    Cause.GOODBYE: CauseRule(frozenset({DepartureKind.GOODBYE}), (type(None),)),
}


@dataclass(frozen=True)
class AuditResult:
    """What an audit checked and found; ``notes`` are worth knowing but no fault."""

    ok: bool
    seals: int
    bans: int
    removals: int
    evidence_checked: int
    self_contained: int
    by_majority: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def audit_ledger(path: Path) -> AuditResult:
    """Return the audit of a ledger (the file, or the data directory around it); nothing is written there.

    It re-verifies every signature, every link of the chain of seals, every change of the roster, and
    every proof. A file that cannot be read is a problem, never an exception.
    """
    try:
        contents = read_contents(path)
    except Unreadable as error:
        return AuditResult(False, 0, 0, 0, 0, 0, 0, (str(error),))
    seals, messages = _take_chain(contents), tuple(_open_messages(contents))
    spoken = _find_spoken(messages)
    chain = Chain(contents.config, seals, contents.departures, contents.evidence, contents.owner, spoken)
    problems = [*contents.problems, *_find_problems(contents, chain, messages)]
    proven: list[Standing] = []
    for departure in contents.departures:
        try:
            proven += _check_departure(chain, departure)
        except (Unproven, ArithmeticError, ValueError) as error:  # forged numbers may break a recomputation
            problems.append(f"round {departure.round}, {departure.kind} of {short(departure.peer)}: {error}")
    return _build_result(contents, chain, proven, problems)


def _take_chain(contents: Contents) -> tuple[Seal, ...]:
    """The seals up to the first gap."""
    first = contents.seals[0].round if contents.seals else 0
    return tuple(seal for number, seal in enumerate(contents.seals, first) if seal.round == number)


def _open_messages(contents: Contents) -> Iterator[Opened]:
    """The owner's messages, each with the stage that it is stored for, or why it does not open."""
    for stage, envelope in contents.messages:
        try:
            yield stage, open_message(contents.config.run_id, envelope)
        except RemoteProtocolError as error:
            yield stage, error


def _find_spoken(messages: Sequence[Opened]) -> Mapping[int, bytes]:
    """For which roster the owner spoke in each attempt; COMMITs are signed for the one at the start of their round."""
    return {
        stage.attempt: message.roster
        for stage, message in messages
        if isinstance(message, SignedMessage) and stage.phase is not Phase.COMMIT
    }


def _find_problems(contents: Contents, chain: Chain, messages: Sequence[Opened]) -> Iterator[str]:
    if len(chain.seals) < len(contents.seals):
        yield f"seal {chain.newest + 1} is missing"
    yield from find_seal_problems(chain, contents.signatures)
    yield from _check_messages(contents, chain, messages)
    for departure in chain.departures:
        for problem in find_departure_problems(chain, departure):
            yield f"round {departure.round}, {departure.kind} of {short(departure.peer)}: {problem}"


def _check_messages(contents: Contents, chain: Chain, messages: Sequence[Opened]) -> Iterator[str]:
    """Our own messages: each opens, is ours, and is in its slot."""
    for stage, message in messages:
        if isinstance(message, RemoteProtocolError):
            yield f"our {stage}: {message}"
        elif message.slot != (stage, contents.owner):
            yield f"our {stage}: it is somebody else's or of another slot"
        elif not _is_seal_kept(chain, message):
            yield f"our {stage}: it signs another seal than the one stored"


def _is_seal_kept(chain: Chain, message: SignedMessage) -> bool:
    """Whether a COMMIT of ours signs the seal that is stored; one of an attempt before that seal need not."""
    stage, payload, seal = message.slot.stage, message.payload, chain.seal_before(message.slot.stage.round)
    if not isinstance(payload, Commit) or seal is None or stage.attempt < seal.attempt:
        return True
    return is_seal_signed_by(message.sender, seal, payload.seal)


def _check_departure(chain: Chain, departure: Departure) -> list[Standing]:
    """Return on what the departure's proof rests; nothing where there need be none.

    Raises:
        Unproven: the proof is missing, of the wrong kind for the cause, or does not hold.
    """
    rule = CAUSE_RULES.get(departure.cause)
    if rule is None or departure.kind not in rule.kinds:
        raise Unproven(f"{departure.cause} is no reason for a {departure.kind}")
    if not isinstance(departure.proof, rule.proofs):
        raise Unproven(f"it has no proof of {departure.cause}")
    if departure.proof is None:
        return []
    proof_rule = PROOF_RULES[type(departure.proof)]
    proof_rule.check(chain, departure, departure.proof)
    return [proof_rule.standing]


def _build_result(contents: Contents, chain: Chain, proven: list[Standing], problems: list[str]) -> AuditResult:
    kinds = [departure.kind for departure in contents.departures]
    return AuditResult(
        ok=not problems,
        seals=len(chain.seals),
        bans=kinds.count(DepartureKind.BAN),
        removals=kinds.count(DepartureKind.REMOVAL),
        evidence_checked=len(proven),
        self_contained=proven.count(Standing.SELF_CONTAINED),
        by_majority=proven.count(Standing.BY_MAJORITY),
        problems=tuple(problems),
        notes=tuple(_find_notes(contents, chain)),
    )


def _find_notes(contents: Contents, chain: Chain) -> Iterator[str]:
    last = chain.newest
    if chain.first:
        yield f"this peer joined midway: its ledger begins with seal {chain.first}"
    if last < 0:
        yield "there is no seal yet: the run had not started"
    elif not is_sealed(chain, last, contents.signatures):
        yield f"seal {last} is the newest and lacks signatures: the next round's were not received"
    pending = sum(departure.round > last for departure in contents.departures)
    if pending:
        yield f"{pending} departures of round {last + 1} are not sealed yet"
