"""When a signed message counts: one honest message of each phase, and everything that spoils it."""

import math
from dataclasses import dataclass

import msgspec
import pytest
from tests.rules.build import make_config, make_message, make_part, make_peers

from btard.rules import validity
from btard.rules.messages import (
    Aggregate,
    Answer,
    AnyPayload,
    Attest,
    Check,
    Commit,
    Confirm,
    Finding,
    Opinion,
    Phase,
    Publish,
    Report,
    Reveal,
    SignedMessage,
    Stage,
    Verdict,
    Vote,
)
from btard.rules.parts import Part

A, B, C, D = make_peers(4)
N, SEAL = b"n" * 32, b"s" * 64
COMMIT = Commit(N, False, (), N, SEAL, False)
VERDICTS = Commit(b"", False, (Verdict(B, guilty=True),), N, SEAL, False)
AGGREGATE = Aggregate(N, 1.0, (), N, ())
COMPLAINT = Aggregate(b"", 0.0, (B, C), N, ())
REPORT = Report((0.5, -0.5), 1.0)
CHECK = Check((REPORT,) * 3, N)
LACKING = Check((), N, (1, 2))
# Part 0 is A's, and part 2, which would be C's, is empty in some cases.
PARTS = tuple(make_part(make_config(), index, peer, 8 * index, 8 * index + 8) for index, peer in enumerate((A, B, C)))
NO_LAST_PART = (*PARTS[:2], make_part(make_config(), 2, C, 16, 16))


def is_valid(payload: AnyPayload, **facts: object) -> bool:
    """Whether A's message with this payload counts, contributors being A, B and C."""
    message: SignedMessage = make_message(facts.pop("sender", A), Stage(4, 0, Phase.COMMIT), payload)  # type: ignore[arg-type]
    contributors = (A, B, C)
    kind = facts.pop("as_kind", type(payload))
    if kind is Commit:
        validators = facts.get("validators", ())
        return validity.is_valid_commit(message, validators, is_closing=bool(facts.get("is_closing")))  # type: ignore[arg-type]
    return {
        Aggregate: lambda: validity.is_valid_aggregate(message, contributors),
        Reveal: lambda: validity.is_valid_reveal(message, 3),
        Check: lambda: validity.is_valid_check(message, contributors, facts.get("parts", PARTS), 2),  # type: ignore[arg-type]
        Confirm: lambda: validity.is_valid_confirm(message, contributors, facts.get("charges", ())),  # type: ignore[arg-type]
        Attest: lambda: validity.is_valid_attest(message, 2),
        Vote: lambda: validity.is_valid_vote(message, 2),
    }[kind]()  # type: ignore[index]


@dataclass(frozen=True)
class Case:
    """A payload, the circumstances, and whether it counts."""

    payload: AnyPayload
    counts: bool
    sender: bytes = A
    validators: tuple[bytes, ...] = ()
    is_closing: bool = False
    charges: tuple[tuple[bytes, bytes], ...] = ()
    parts: tuple[Part, ...] = PARTS

    def __str__(self) -> str:
        return f"{self.payload}"[:60]


def change(payload: AnyPayload, **fields: object) -> AnyPayload:
    """The payload with other fields."""
    return msgspec.structs.replace(payload, **fields)


OPINION = Opinion((), (), ())
ANSWER, OTHER = Answer(D, B, Finding.TRUE), Answer(C, A, Finding.UNKNOWN)
CASES = (
    Case(COMMIT, True),
    Case(change(COMMIT, overflow=True), True),
    Case(change(COMMIT, root=b""), False),
    Case(change(COMMIT, root=b"short"), False),
    Case(change(COMMIT, verdicts=VERDICTS.verdicts), False),  # only validators judge
    Case(COMMIT, False, validators=(A,)),  # a validator computes no gradient
    Case(VERDICTS, True, validators=(A,)),
    Case(change(VERDICTS, verdicts=()), True, validators=(A,)),
    Case(VERDICTS, False, validators=(B,)),
    Case(COMMIT, False, is_closing=True),
    Case(change(COMMIT, root=b""), True, is_closing=True),
    Case(VERDICTS, True, validators=(A,), is_closing=True),
    Case(AGGREGATE, True),
    Case(change(AGGREGATE, root=b""), False),
    Case(change(AGGREGATE, norm=math.nan), False),
    Case(change(AGGREGATE, norm=math.inf), False),
    Case(change(AGGREGATE, norm=-1.0), False),
    Case(COMPLAINT, True),
    Case(change(COMPLAINT, root=N), False),  # a root or a complaint, not both
    Case(change(COMPLAINT, missing=(C, B)), False),
    Case(change(COMPLAINT, missing=(B, B)), False),
    Case(change(COMPLAINT, missing=(A, B)), False),  # nobody lacks its own slice
    Case(change(COMPLAINT, missing=(B, D)), False),  # D contributes nothing
    Case(Reveal(N, ()), True),
    Case(Reveal(N, (0, 2)), True),
    Case(Reveal(N, (2, 0)), False),
    Case(Reveal(N, (1, 1)), False),
    Case(Reveal(N, (3,)), False),
    Case(CHECK, True),
    Case(change(CHECK, reports=(REPORT,) * 2), False),
    Case(change(CHECK, reports=()), False),
    Case(change(CHECK, reports=(REPORT, REPORT, Report((0.5,), 1.0))), False),
    Case(change(CHECK, reports=(REPORT, REPORT, Report((0.5, math.nan), 1.0))), False),
    Case(CHECK, False, sender=D),
    Case(change(CHECK, reports=()), True, sender=D),
    Case(LACKING, True),
    Case(LACKING, True, sender=D),
    Case(change(LACKING, reports=(REPORT,) * 3), False),  # reports or a complaint, not both
    Case(change(LACKING, missing=(2, 1)), False),
    Case(change(LACKING, missing=(1, 1)), False),
    Case(change(LACKING, missing=(1, 3)), False),
    Case(LACKING, False, sender=B),  # nobody lacks its own part
    Case(LACKING, False, parts=NO_LAST_PART),  # nor one that is empty: that complaint would be about nobody
    Case(Confirm(N, ()), True),
    Case(Confirm(N, (B, C)), True),
    Case(Confirm(N, (C, B)), False),
    Case(Confirm(N, (A,)), False),
    Case(Confirm(N, (D,)), False),
    Case(Confirm(N, (), (ANSWER,)), False),  # to what nobody asked
    Case(Confirm(N, (), (ANSWER,)), True, charges=((D, B),)),
    Case(Confirm(N, ()), False, charges=((D, B),)),
    Case(Confirm(N, (), (ANSWER,) * 2), False, charges=((D, B),)),
    Case(Confirm(N, (), (ANSWER,)), False, charges=((D, C),)),
    Case(Confirm(N, (), (ANSWER, OTHER)), False, charges=((D, B), (C, B))),
    Case(Confirm(N, (), (OTHER, ANSWER)), False, charges=((D, B), (C, A))),  # in order
    Case(Confirm(N, (), (ANSWER, OTHER)), True, charges=((D, B), (C, A))),
    Case(Attest((True, False)), True),
    Case(Attest((True,)), False),
    Case(Attest((True,) * 3), False),
    Case(Vote((OPINION,) * 2), True),
    Case(Vote((OPINION,)), False),
    Case(Vote((OPINION,) * 3), False),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_message_counts_or_not(case: Case) -> None:
    """Each condition of each phase, on both sides of it."""
    found = is_valid(
        case.payload,
        sender=case.sender,
        validators=case.validators,
        is_closing=case.is_closing,
        charges=case.charges,
        parts=case.parts,
    )
    assert found is case.counts


@pytest.mark.parametrize("kind", [Commit, Aggregate, Reveal, Check, Confirm, Attest, Vote])
def test_payload_of_another_phase_never_counts(kind: type) -> None:
    """A condition is never applied to the fields of another kind of message."""
    assert not is_valid(Publish(N), as_kind=kind)
