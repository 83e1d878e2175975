"""
Models of the fallback, explored to the end on the very functions that members run.

``explore_extraction`` is Dolev–Strong for one Byzantine sender: in each step the cheats show any of three values to
any honest member in any order, with all signatures they can have; what one honest member takes, all are shown by the
end of the next step. ``explore_recovery`` is the rest: which view of each cheat reaches whom before the vote, where
each cheat ends in the agreed vector, and which certificates it completes for whom, at any time. Why nothing else that
cheats or the network do matters stands in docs/explanation/agreement.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from tests.rules.build import make_message, make_position, make_roster

from btard.identity import PeerId
from btard.rules import agreement, recovery
from btard.rules.dolev_strong import Extraction
from btard.rules.messages import Ballot, Conclude, Phase, SignedMessage, Stage, View
from btard.rules.roster import Roster

VALUES = (b"a", b"b", b"c")
VIEW, BALLOT = Stage(0, 2, Phase.VIEW), Stage(0, 2, Phase.BALLOT)
Takes = Callable[[Extraction, Roster, int, int, PeerId, frozenset[PeerId]], bool]


@dataclass(frozen=True)
class Found:
    """What an exploration saw: how many states, and the first in which honest members differ, if any."""

    states: int
    disagreement: object | None = None


# --- Dolev–Strong for one sender ---

Taken = tuple[Extraction, ...]
"""What each honest member has taken."""


def explore_extraction(size: int, takes: Takes = Extraction.takes) -> Found:
    """Return whether all honest members always end with the same outcome for a Byzantine sender."""
    roster = make_roster(size)
    tolerated = roster.tolerated()
    honest, cheats = roster.members[: size - tolerated], frozenset(roster.members[size - tolerated :])
    start = (1, (Extraction(),) * len(honest), frozenset[bytes](), frozenset[bytes]())
    seen, waiting = {start}, [start]
    while waiting:
        step, taken, due, fresh = waiting.pop()
        if step > tolerated + 1:
            if len({(item.outcome, len(item.values) == 2) for item in taken}) > 1:
                return Found(len(seen), taken)
            continue
        moves = []
        is_over = True
        for member, value in product(range(len(honest)), VALUES):
            signers = cheats | {peer for peer, item in zip(honest, taken, strict=True) if value in item.values}
            if value in taken[member].values or not takes(
                taken[member], roster, tolerated, step, roster.members[-1], signers
            ):
                continue
            after = (*taken[:member], taken[member].with_value(value), *taken[member + 1 :])
            moves.append((step, after, due, fresh | {value}))
            is_over = is_over and value not in due
        if is_over:
            moves.append((step + 1, taken, fresh, frozenset()))
        for move in moves:
            if move not in seen:
                seen.add(move)
                waiting.append(move)
    return Found(len(seen))


# --- from views to a decision ---

Votes = Mapping[PeerId, SignedMessage]


@dataclass(frozen=True)
class Rules:
    """The rules that a recovery goes by; a variant breaks one of them."""

    find_certificate: Callable[[Roster, Votes], tuple | None] = recovery.find_certificate
    find_elected: Callable[[Roster, Mapping[PeerId, Ballot]], Ballot | None] = agreement.find_elected
    removes_when_elected: bool = False


def make_views(roster: Roster) -> dict[tuple[PeerId, int], SignedMessage]:
    """Two views of everyone."""
    position = make_position(Stage(5, 2, Phase.REVEAL))
    return {
        (peer, version): make_message(
            peer, VIEW, View(position, bool(version), (), (bytes(peer),), (), b"", (), resumed=False)
        )
        for peer in roster.members
        for version in (0, 1)
    }


def vote(roster: Roster, views: Mapping[PeerId, SignedMessage]) -> Ballot:
    """The ballot of a member that holds these views."""
    silent = tuple(peer for peer in roster.members if peer not in views)
    return Ballot(silent, recovery.compute_views_digest(views))


def explore_recovery(size: int, rules: Rules = Rules()) -> Found:
    """Return whether certificates and conclusions always decide the same, and something is always decided."""
    roster = make_roster(size)
    cheats = roster.members[size - roster.tolerated() :]
    honest, views, states = roster.members[: size - len(cheats)], make_views(roster), 0
    for shown in product(product((None, 0, 1), repeat=len(cheats)), repeat=len(honest)):
        held = [
            {peer: views[peer, 0] for peer in honest}
            | {peer: views[peer, version] for peer, version in zip(cheats, row, strict=True) if version is not None}
            for row in shown
        ]
        cast = {peer: vote(roster, views_held) for peer, views_held in zip(honest, held, strict=True)}
        certified = set(_find_certified(roster, cheats, cast, rules))
        for places in product(_places(cast), repeat=len(cheats)):
            states += 1
            concluded = {_conclude(roster, honest, cheats, cast, places, own, views, rules) for own in cast.values()}
            if len(concluded | certified) != 1 or None in concluded:
                return Found(states, (shown, places, concluded, certified))
    return Found(states)


def _find_certified(
    roster: Roster, cheats: tuple[PeerId, ...], cast: Mapping[PeerId, Ballot], rules: Rules
) -> Iterator[Conclude]:
    """What certificates decide that some honest member may be shown, whatever the cheats sign for whom."""
    for choice in product((None, *dict.fromkeys(cast.values())), repeat=len(cheats)):
        signed = cast | {peer: ballot for peer, ballot in zip(cheats, choice, strict=True) if ballot is not None}
        ballots = {peer: make_message(peer, BALLOT, ballot) for peer, ballot in signed.items()}
        if found := rules.find_certificate(roster, ballots):
            yield Conclude(found[1], (), ())


def _places(cast: Mapping[PeerId, Ballot]) -> list[str | tuple[int, Ballot]]:
    """Where a cheat may end in the agreed vector: nowhere, caught with two values, or with a view and a ballot."""
    other = Ballot((), b"o" * 32)
    return ["none", "two", *product((0, 1), (*dict.fromkeys(cast.values()), other))]


def _conclude(
    roster: Roster,
    honest: tuple[PeerId, ...],
    cheats: tuple[PeerId, ...],
    cast: Mapping[PeerId, Ballot],
    places: tuple[str | tuple[int, Ballot], ...],
    own: Ballot,
    views: Mapping[tuple[PeerId, int], SignedMessage],
    rules: Rules,
) -> Conclude | None:
    """What an honest member concludes, as swarm/recovery.py does."""
    vector, agreed = dict(cast), {peer: views[peer, 0] for peer in honest}
    for peer, place in zip(cheats, places, strict=True):
        if isinstance(place, tuple):
            vector[peer], agreed[peer] = place[1], views[peer, place[0]]
    split = tuple(peer for peer, place in zip(cheats, places, strict=True) if place == "two")
    if not agreement.can_settle(roster, vector, own):
        return None
    elected = rules.find_elected(roster, vector)
    unvoted = agreement.find_unvoted(roster, vector, split, roster.tolerated())
    if elected is not None:
        return Conclude(elected.views, unvoted if rules.removes_when_elected else (), ())
    return Conclude(recovery.compute_views_digest(agreed), unvoted, split)
