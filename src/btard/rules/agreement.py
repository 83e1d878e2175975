"""
What a recovery rests on where no certificate formed: the final vector, and more than half who conclude the same.

Dolev–Strong gives every honest member the same vector: of each sender the view and the ballot, or nothing.
If one ballot is that of more than half, its views decide: a certificate that anybody may hold names the same, for
under synchrony all honest members voted for it (attacks A5). Otherwise the views of the vector do. Nobody acts on its
own vector: members sign what they conclude, and only equal conclusions of more than half of the roster count, so a
member that came late or was cut off follows the others or waits.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from btard.identity import PeerId
from btard.rules.messages import Ballot, Conclude, SignedMessage
from btard.rules.roster import Roster


def find_elected(roster: Roster, vector: Mapping[PeerId, Ballot]) -> Ballot | None:
    """Return the ballot that more than half of the roster cast, if there is one in the final vector."""
    counts = Counter(vector.values())
    ballot, count = counts.most_common(1)[0] if counts else (None, 0)
    return ballot if count >= roster.majority else None


def find_unvoted(
    roster: Roster, vector: Mapping[PeerId, Ballot], split: Collection[PeerId], tolerated: int
) -> tuple[PeerId, ...]:
    """Return the members without a place in the vector whose view f+1 voters held: they showed it and did not vote.

    Those who are ``split``, for they showed two, are worse and no part of this.
    """
    holders = Counter(peer for ballot in vector.values() for peer in roster.members if peer not in ballot.silent)
    absent = [peer for peer in roster.members if peer not in vector and peer not in split]
    return tuple(peer for peer in absent if holders[peer] > tolerated)


def can_settle(roster: Roster, vector: Mapping[PeerId, Ballot], own: Ballot | None) -> bool:
    """Return whether a vector may be concluded from: it speaks for more than half, and not against our own vote.

    Our vote can have become a certificate unless somebody outside its silent voted otherwise. Under synchrony an
    honest member always sees that where another ballot is elected or none; whoever does not is cut off, and waits.
    """
    elected = find_elected(roster, vector)
    if len(vector) < roster.majority:
        return False
    if own is None or own == elected:
        return True
    return any(vector[peer] != own for peer in vector if peer not in own.silent)


def find_conclusion(
    roster: Roster, conclusions: Mapping[PeerId, SignedMessage]
) -> tuple[Conclude, tuple[SignedMessage, ...]] | None:
    """Return the conclusion that more than half of the roster signed, with their messages."""
    groups: dict[Conclude, list[SignedMessage]] = {}
    for peer in roster.members:
        if peer in conclusions and isinstance(conclusion := conclusions[peer].payload, Conclude):
            groups.setdefault(conclusion, []).append(conclusions[peer])
    return next(((found, tuple(votes)) for found, votes in groups.items() if len(votes) >= roster.majority), None)


def find_restart(roster: Roster, serials: Mapping[PeerId, int]) -> int | None:
    """Return the serial at which halted members begin again: the highest that more than half have come to."""
    reached = sorted((serial for peer, serial in serials.items() if peer in roster), reverse=True)
    return reached[roster.majority - 1] if len(reached) >= roster.majority else None
