"""
Accusations become disputes, disputes become verdicts (design section 4; attacks B3, B7).

Rules of this file

1. Which disputes open follows from agreed transcripts alone, in an order that all peers share.
2. A verdict is a count over the agreed votes: conviction needs more than half of the roster.
3. Somebody always pays: an accusation or naming that is not upheld costs its author its place,
   so accusing is never free.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from btard.identity import PeerId
from btard.rules.draws import Assignment
from btard.rules.messages import Commit, Confirm, DisputePublish, Opinion, Transcript, Vote
from btard.rules.parts import Part
from btard.rules.roster import Roster


class DisputeKind(StrEnum):
    """What is in dispute; the value is the word used in logs and in the ledger."""

    GRADIENT = "gradient"
    REPORT = "report"
    COLUMN = "column"


@dataclass(frozen=True)
class Dispute:
    """One open question about ``round``.

    GRADIENT: did ``accused`` commit to its honest gradient and report on it truly? ``accuser`` is
    a validator. REPORT: is the accused's report on ``part`` what its slice gives? The accuser is
    that part's aggregator. COLUMN: is the aggregate of ``part`` right, and every report on it?
    The accused is the aggregator, and nobody accuses.
    """

    kind: DisputeKind
    round: int
    accused: PeerId
    accuser: PeerId | None = None
    part: int | None = None


@dataclass(frozen=True)
class Ruling:
    """The outcome of one dispute: who is banned, who is removed, which columns must be opened again."""

    dispute: Dispute
    banned: tuple[PeerId, ...]
    removed: tuple[PeerId, ...]
    parts: tuple[int, ...]


def find_accusations(commits: Transcript, assignments: Sequence[Assignment], round_number: int) -> tuple[Dispute, ...]:
    """Return the gradient disputes that validators open about ``round_number``, in order of the draw.

    Only a drawn validator can accuse, and only its own target.
    """
    present = {message.sender: message.payload for message in commits.messages}
    return tuple(
        Dispute(DisputeKind.GRADIENT, round_number, pair.target, pair.validator)
        for pair in assignments
        if isinstance(commit := present.get(pair.validator), Commit)
        and any(verdict.target == pair.target and verdict.guilty for verdict in commit.verdicts)
    )


def find_namings(
    confirms: Transcript, parts: Sequence[Part], contributors: Sequence[PeerId], round_number: int
) -> tuple[Dispute, ...]:
    """Return the report disputes that aggregators open: for each named reporter the lowest part."""
    named: dict[PeerId, Dispute] = {}
    senders = {message.sender: message.payload for message in confirms.messages}
    for part in parts:
        confirm = senders.get(part.aggregator)
        if isinstance(confirm, Confirm):
            for peer in confirm.named:
                reporter = PeerId(peer)
                if reporter in contributors and reporter != part.aggregator and reporter not in named:
                    named[reporter] = Dispute(DisputeKind.REPORT, round_number, reporter, part.aggregator, part.index)
    return tuple(named[peer] for peer in sorted(named))


def find_attesters(published: Transcript, index: int, place: int) -> tuple[PeerId, ...]:
    """Return who says to hold, and must serve, the slice in one place of those that dispute ``index`` asks for."""
    return tuple(
        message.sender
        for message in published.messages
        if isinstance(message.payload, DisputePublish) and place not in message.payload.lacking[index]
    )


def find_withheld(published: Transcript, index: int, wanted: int, roster: Roster) -> tuple[int, ...]:
    """Return the places, of as many as are wanted, of slices that not even half of ``roster`` say to hold."""
    return tuple(
        place
        for place in range(wanted)
        if sum(peer in roster for peer in find_attesters(published, index, place)) < roster.majority
    )


def find_unowed(
    dispute: Dispute,
    published: Transcript,
    index: int,
    wanted: Sequence[PeerId],
    withheld: Collection[PeerId],
    roster: Roster,
) -> frozenset[PeerId]:
    """Return whose slices of a column nobody owes: of those who left and are withheld, what its aggregator lacks too.

    Nobody else got them, and it may have lost them by a restart. The column's aggregate then stays unjudged. What more
    than half hold comes from them, whatever the aggregator says.
    """
    said = [message.payload for message in published.messages if message.sender == dispute.accused]
    lacking = [payload.lacking[index] for payload in said if isinstance(payload, DisputePublish)]
    is_column = dispute.kind is DisputeKind.COLUMN
    named = [peer for place, peer in enumerate(wanted) if any(place in item for item in lacking)]
    return frozenset(peer for peer in named if peer in withheld and peer not in roster) if is_column else frozenset()


def settle(dispute: Dispute, opinions: Sequence[Opinion], roster: Roster) -> Ruling:
    """Return the ruling of one dispute from one agreed opinion per member."""

    def upheld(field: str) -> tuple[PeerId, ...]:
        candidates = {PeerId(peer) for opinion in opinions for peer in getattr(opinion, field)}
        return tuple(
            sorted(
                peer
                for peer in candidates
                if sum(peer in getattr(opinion, field) for opinion in opinions) >= roster.majority
            )
        )

    banned, removed = upheld("guilty"), upheld("silent")
    payer = dispute.accuser
    if payer is not None and dispute.accused not in banned and payer not in (*banned, *removed):
        banned = tuple(sorted({*banned, payer}))
    candidates = sorted({part for opinion in opinions for part in opinion.parts})
    parts = tuple(part for part in candidates if sum(part in opinion.parts for opinion in opinions) >= roster.majority)
    return Ruling(dispute, banned, tuple(peer for peer in removed if peer not in banned), parts)


def settle_all(disputes: Sequence[Dispute], votes: Transcript, roster: Roster) -> tuple[Ruling, ...]:
    """Return the rulings of all open disputes by the votes of ``roster``.

    A vote that answers another number of disputes does not count.
    """
    counted = [
        message.payload.opinions
        for message in votes.messages
        if message.sender in roster
        and isinstance(message.payload, Vote)
        and len(message.payload.opinions) == len(disputes)
    ]
    return tuple(
        settle(dispute, [opinions[index] for opinions in counted], roster) for index, dispute in enumerate(disputes)
    )
