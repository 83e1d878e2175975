"""
When a signed message counts: the conditions of each phase, on agreed values only.

A message that does not count is as good as missing: its sender is removed in the end, by agreement,
if it never sends one that does.
"""

import math
from collections.abc import Collection, Sequence
from operator import lt
from typing import TypeVar

from btard.identity import DIGEST_SIZE, PeerId
from btard.rules.checks import is_well_formed
from btard.rules.messages import (
    Aggregate,
    Attest,
    Check,
    Commit,
    Confirm,
    DisputePublish,
    Reveal,
    SignedMessage,
    Vote,
)
from btard.rules.parts import Part
from btard.rules.relays import Errand

_Item = TypeVar("_Item", bytes, int, Errand)


def is_valid_commit(message: SignedMessage, validators: Collection[PeerId], *, is_closing: bool) -> bool:
    """A gradient root from all but validators and those who say goodbye; verdicts from validators alone."""
    commit = message.payload
    if not isinstance(commit, Commit):
        return False
    is_validator = message.sender in validators
    wants_root = not (is_validator or is_closing or commit.goodbye)
    return len(commit.root) == (DIGEST_SIZE if wants_root else 0) and (is_validator or not commit.verdicts)


def is_valid_aggregate(
    message: SignedMessage, contributors: Collection[PeerId], errands: Collection[Errand] = ()
) -> bool:
    """Either a root with its norm, or contributors whose slices are missing; errands of the sender that failed."""
    aggregate = message.payload
    if not isinstance(aggregate, Aggregate):
        return False
    if aggregate.unrelayed:
        failed = [Errand(message.sender, PeerId(item.recipient), PeerId(item.owner)) for item in aggregate.unrelayed]
        if not (_is_sorted(failed) and set(failed) <= set(errands)):
            return False
    if aggregate.missing:
        known = set(aggregate.missing) <= set(contributors) and message.sender not in aggregate.missing
        return known and _is_sorted(aggregate.missing) and not aggregate.root
    return len(aggregate.root) == DIGEST_SIZE and math.isfinite(aggregate.norm) and aggregate.norm >= 0


def is_valid_reveal(message: SignedMessage, parts: int) -> bool:
    """The parts called missing exist, each once."""
    reveal = message.payload
    if not isinstance(reveal, Reveal):
        return False
    return not reveal.missing or (_is_sorted(reveal.missing) and reveal.missing[-1] < parts)


def is_valid_check(
    message: SignedMessage, contributors: Collection[PeerId], parts: Collection[Part], projections: int
) -> bool:
    """A well-formed report on every part from contributors, none from the others; none with a complaint.

    Each part called missing gives one: an attempt never goes on without a report that was due, nor ends for nothing.
    """
    check = message.payload
    if not isinstance(check, Check):
        return False
    if check.missing:
        others = {part.index for part in parts if part.elements and part.aggregator != message.sender}
        return not check.reports and _is_sorted(check.missing) and set(check.missing) <= others
    if message.sender not in contributors:
        return not check.reports
    return is_well_formed(check.reports, len(parts), projections)


def is_valid_confirm(
    message: SignedMessage, contributors: Collection[PeerId], charges: Sequence[tuple[PeerId, PeerId]] = ()
) -> bool:
    """Only contributors are named, each once, and nobody names itself; every charge is answered, in order."""
    confirm = message.payload
    if not isinstance(confirm, Confirm):
        return False
    if [(item.candidate, item.checker) for item in confirm.answers] != list(charges):
        return False
    named = confirm.named
    return not named or (_is_sorted(named) and set(named) <= set(contributors) and message.sender not in named)


def is_valid_attest(message: SignedMessage, complaints: int) -> bool:
    """One attestation for every complaint."""
    return isinstance(message.payload, Attest) and len(message.payload.held) == complaints


def is_valid_dispute_publish(message: SignedMessage, disputes: int) -> bool:
    """Places that its sender lacks, each once, for every dispute; a place of nothing says nothing."""
    published = message.payload
    return (
        isinstance(published, DisputePublish)
        and len(published.lacking) == disputes
        and all(map(_is_sorted, published.lacking))
    )


def is_valid_vote(message: SignedMessage, disputes: int) -> bool:
    """One opinion on every dispute."""
    return isinstance(message.payload, Vote) and len(message.payload.opinions) == disputes


def _is_sorted(items: Sequence[_Item]) -> bool:
    """Whether each is larger than the one before."""
    return all(map(lt, items, items[1:]))
