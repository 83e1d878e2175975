"""
Complaints: data that did not arrive over a private link, settled without blaming the innocent (attacks B2).

The accused publishes to all, everyone attests to what it holds, and attesters serve it. If more than
half attest, the complainer could have it; otherwise the accused never published and is removed.
"""

from collections.abc import Collection
from dataclasses import dataclass

from btard.identity import PeerId
from btard.rules.messages import Aggregate, Attest, Reveal, Transcript
from btard.rules.parts import Part
from btard.rules.roster import Roster


@dataclass(frozen=True, order=True)
class Complaint:
    """``complainer`` lacks from ``accused``: its slice of ``part`` at scatter, the aggregate of ``part`` at gather."""

    part: int
    accused: PeerId
    complainer: PeerId


def find_scatter_complaints(aggregates: Transcript, parts: Collection[Part]) -> tuple[Complaint, ...]:
    """Return the aggregators' complaints about contributors, in order of part and accused; none about an empty part."""
    index = {part.aggregator: part.index for part in parts if part.elements}
    return tuple(
        sorted(
            Complaint(index[message.sender], PeerId(peer), message.sender)
            for message in aggregates.messages
            if isinstance(message.payload, Aggregate) and message.sender in index
            for peer in message.payload.missing
        )
    )


def find_gather_complaints(reveals: Transcript, parts: Collection[Part]) -> tuple[Complaint, ...]:
    """Return the complaints about aggregators: one for every part that anyone lacks, empty parts aside."""
    aggregator = {part.index: part.aggregator for part in parts if part.elements}
    first: dict[int, Complaint] = {}
    for message in reveals.messages:
        if isinstance(message.payload, Reveal):
            for part in message.payload.missing:
                if part in aggregator and message.sender != aggregator[part]:
                    first.setdefault(part, Complaint(part, aggregator[part], message.sender))
    return tuple(first[part] for part in sorted(first))


def find_attesters(attests: Transcript, index: int) -> tuple[PeerId, ...]:
    """Return who attests to hold, and must serve, what complaint ``index`` is about."""
    return tuple(m.sender for m in attests.messages if isinstance(m.payload, Attest) and m.payload.held[index])


def find_unattested(complaints: Collection[Complaint], attests: Transcript, roster: Roster) -> tuple[int, ...]:
    """Return the indices of complaints whose data not even half of the roster attests to hold."""
    held = [message.payload.held for message in attests.messages if isinstance(message.payload, Attest)]
    return tuple(index for index in range(len(complaints)) if sum(row[index] for row in held) < roster.majority)
