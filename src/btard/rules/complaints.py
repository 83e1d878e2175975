"""
Complaints: data that did not arrive over a private link, settled without blaming the innocent (attacks B1, B2).

The accused publishes to all, everyone attests to what it holds, and attesters serve it. If not even
half attest, the accused never published and is removed. Otherwise the complainer could have it, and
nobody can tell which of the two lied: the pair is marked. A marked pair exchanges through a relay, and
whoever of it still lacks something complains about the relay, unless the relay itself lacks it and
says so: then the relay's complaint about its source is the one that counts. In CHECK, where a restart may have lost
what a relay had, the complaint of any member that needs no relay counts before those about relays.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from btard.identity import PeerId
from btard.rules.marks import Pair, make_pair
from btard.rules.messages import Aggregate, Attest, Check, Reveal, Transcript
from btard.rules.parts import Part
from btard.rules.relays import Relays
from btard.rules.roster import Roster


@dataclass(frozen=True, order=True)
class Complaint:
    """``complainer`` did not get from ``accused``, who is ``owner`` or a relay: ``owner``'s slice or aggregate.

    At scatter it is the owner's slice of ``part``, later the aggregate of ``part``, which is the owner's.
    """

    part: int
    owner: PeerId
    accused: PeerId
    complainer: PeerId

    @property
    def pair(self) -> Pair:
        """The two of whom one has failed the other."""
        return make_pair(self.accused, self.complainer)


def find_scatter_complaints(aggregates: Transcript, parts: Collection[Part], relays: Relays) -> tuple[Complaint, ...]:
    """Return the complaints about slices, in order of part and owner; none about an empty part."""
    index = {part.aggregator: part.index for part in parts if part.elements}
    payloads = {m.sender: m.payload for m in aggregates.messages if isinstance(m.payload, Aggregate)}
    unrelayed = {
        (PeerId(item.recipient), PeerId(item.owner)): sender
        for sender, payload in payloads.items()
        for item in payload.unrelayed
        if item.recipient in index and relays.between(PeerId(item.recipient), PeerId(item.owner)) == sender
    }
    found = [Complaint(index[recipient], owner, owner, relay) for (recipient, owner), relay in unrelayed.items()]
    found += [
        Complaint(index[sender], owner, relays.between(sender, owner) or owner, sender)
        for sender, payload in payloads.items()
        for owner in map(PeerId, payload.missing if sender in index else ())
        if (sender, owner) not in unrelayed
    ]
    return tuple(sorted(found))


def find_gather_complaints(reveals: Transcript, parts: Collection[Part], relays: Relays) -> tuple[Complaint, ...]:
    """Return the complaints about aggregates, in order of part and complainer, empty parts aside."""
    owner = {part.index: part.aggregator for part in parts if part.elements}
    lacking = {
        (message.sender, part)
        for message in reveals.messages
        if isinstance(message.payload, Reveal)
        for part in message.payload.missing
        if part in owner and message.sender != owner[part]
    }
    sources = {(peer, part): relays.between(peer, owner[part]) or owner[part] for peer, part in lacking}
    return tuple(
        sorted(
            Complaint(part, owner[part], source, peer)
            for (peer, part), source in sources.items()
            if (source, part) not in lacking
        )
    )


def find_check_complaints(checks: Transcript, parts: Collection[Part], relays: Relays) -> tuple[Complaint, ...]:
    """Return the complaints about aggregates that nobody gave back, in order of part and complainer.

    Whoever is marked with the aggregator complains about the relay, but not where somebody who is not lacks the part
    too: that one's complaint is enough, and a relay that was started again may have lost what it had. Every part that
    is lacking gives a complaint, and every complaint is about a pair that is not marked.
    """
    owner = {part.index: part.aggregator for part in parts}
    lacking = [
        (message.sender, part)
        for message in checks.messages
        if isinstance(message.payload, Check)
        for part in message.payload.missing
    ]
    direct = {part for peer, part in lacking if relays.between(peer, owner[part]) is None}
    found = [(peer, part, relays.between(peer, owner[part])) for peer, part in lacking]
    return tuple(
        sorted(
            Complaint(part, owner[part], relay or owner[part], peer)
            for peer, part, relay in found
            if relay is None or part not in direct
        )
    )


def compute_publication(complaints: Collection[Complaint], parts: Sequence[Part], roster: Roster) -> int:
    """Return the bytes within which all that complaints ask for is published, whoever sends first to whom.

    Whoever is accused sends everyone else each slice or aggregate that it is accused of, and everyone receives one
    of each. The most that one member sends is followed, at worst, by all that one receives: what comes last in every
    queue may be for the same member.
    """
    asked = {(item.accused, item.part, item.owner) for item in complaints}
    sent: Counter[PeerId] = Counter()
    for accused, part, _ in asked:
        sent[accused] += 4 * parts[part].elements
    return (len(roster) - 1) * max(sent.values(), default=0) + sent.total()


def find_attesters(attests: Transcript, index: int) -> tuple[PeerId, ...]:
    """Return who attests to hold, and must serve, what complaint ``index`` is about."""
    return tuple(m.sender for m in attests.messages if isinstance(m.payload, Attest) and m.payload.held[index])


def find_unattested(complaints: Collection[Complaint], attests: Transcript, roster: Roster) -> tuple[int, ...]:
    """Return the indices of complaints whose data not even half of the roster attests to hold."""
    held = [message.payload.held for message in attests.messages if isinstance(message.payload, Attest)]
    return tuple(index for index in range(len(complaints)) if sum(row[index] for row in held) < roster.majority)


def find_undecided(complaints: Sequence[Complaint], unattested: Collection[int]) -> frozenset[Pair]:
    """Return the pairs that complaints mark: what was asked for could be had, so either side may have lied."""
    return frozenset(complaint.pair for index, complaint in enumerate(complaints) if index not in unattested)
