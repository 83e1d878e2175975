"""
A model of the way from one attempt to the next, explored to the end on the very functions that members run.

The transcript that AGREE confirms convicts one cheat, which leaves by it. Whether an honest member holds the last AGREE
when a recovery of the attempt begins there is the cheats' choice, for each. They show each honest member any of their
views, or none, vote as they like, end in the vector where they like, and hand votes of one attempt to members in the
other. Honest members that are past the attempt take no part in its recoveries. Nobody may leave by anything else
than the others; no honest member may leave. What the model leaves out stands in docs/explanation/agreement.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, product

from tests.rules.agreement_model import Found, vote
from tests.rules.build import make_message, make_position, make_roster

from btard.identity import Context, PeerId, digest
from btard.rules import agreement, recovery
from btard.rules.messages import Ballot, Holding, Phase, SignedMessage, Stage, View
from btard.rules.recovery import Decision
from btard.rules.roster import Roster

ATTEMPT = 2
CONFIRM, AGREE = Stage(5, ATTEMPT, Phase.CONFIRM), Stage(5, ATTEMPT, Phase.AGREE)
WHOLE, PART, OWN, FAR = "whole", "part", "own", "far"
"""What a view shows of AGREE: everyone's, the honest members', one's own alone; everyone's of a round far ahead."""
Views = Mapping[PeerId, SignedMessage]
Outcome = tuple[tuple[PeerId, ...], bool]
"""Who leaves by a settlement, and whether it ends the attempt by AGREE."""


@dataclass(frozen=True)
class Rules:
    """The rules by which members come from one attempt to the next; a variant breaks one of them."""

    acts_at_once: bool = False
    is_agreed: Callable[[Roster, Mapping[PeerId, View], int, int], bool] = recovery.is_agreed
    belongs: Callable[[SignedMessage, Roster, Stage], bool] = recovery.belongs


class Boundary:
    """One swarm in AGREE of an attempt, and all that can become of it."""

    def __init__(self, size: int, rules: Rules, shown: tuple[str, ...]) -> None:
        self.roster, self.rules, self.shown = make_roster(size), rules, shown
        self.tolerated = self.roster.tolerated()
        self.honest = self.roster.members[: size - self.tolerated]
        self.cheats = self.roster.members[size - self.tolerated :]
        self.next_rosters = [self.roster.without([cheat]) for cheat in self.cheats]
        self.states = 0
        self._decided: dict[object, Outcome] = {}
        self.view, self.vote = cache(self._view), cache(self._vote)

    def _view(self, peer: PeerId, kind: str, serial: int, *, overdue: bool = True) -> SignedMessage:
        """The view of a member that waits in AGREE and holds this much of it."""
        known = {PART: self.honest, OWN: (peer,)}.get(kind, self.roster.members)
        agree = make_position(AGREE._replace(round=10**6) if kind == FAR else AGREE)
        said = tuple(digest(Context.HELD, m) if m in {*known, peer} else b"" for m in self.roster.members)
        before = tuple(digest(Context.VIEWS, m) for m in self.roster.members)
        holdings = Holding(make_position(CONFIRM), before), Holding(agree, said)
        content = View(agree, overdue, holdings, (), (), b"h", (), resumed=False)
        return make_message(peer, Stage(0, ATTEMPT, Phase.VIEW, serial), content, self.roster.digest)

    def _vote(self, peer: PeerId, ballot: Ballot, serial: int) -> SignedMessage:
        return make_message(peer, Stage(0, ATTEMPT, Phase.BALLOT, serial), ballot, self.roster.digest)

    def decide(self, views: Views, serial: int, unvoted: tuple[PeerId, ...], split: tuple[PeerId, ...]) -> Outcome:
        """What follows from agreed views."""
        key = tuple(views[peer].digest for peer in sorted(views)), serial, unvoted, split
        if key not in self._decided:
            opened = {peer: item.payload for peer, item in views.items()}
            found: Decision = recovery.decide(
                self.roster, opened, (), self.tolerated, is_first=not serial, unvoted=unvoted, split=split
            )
            agreed = not found.leaving and self.rules.is_agreed(self.roster, opened, self.tolerated, ATTEMPT)
            self._decided[key] = found.leaving, agreed
        return self._decided[key]

    def recover(self, kinds: tuple[str, ...], serial: int) -> Iterator[set[Outcome]]:
        """All that members can settle, in every course of one recovery; the last of the honest ones take part."""
        inside = self.honest[len(self.honest) - len(kinds) :]
        overdue = OWN not in kinds  # while an honest AGREE is under way nobody's deadline has passed
        own = {peer: self.view(peer, kind, serial, overdue=overdue) for peer, kind in zip(inside, kinds, strict=True)}
        for rows in product(product(("", *self.shown), repeat=len(self.cheats)), repeat=len(inside)):
            if any(kinds[i] == kinds[i + 1] and rows[i] > rows[i + 1] for i in range(len(inside) - 1)):
                continue  # honest members that hold the same are interchangeable
            if (columns := list(zip(*rows, strict=True))) != sorted(columns):
                continue  # and so are cheats, whichever of them is convicted
            held = [
                own | {c: self.view(c, kind, serial) for c, kind in zip(self.cheats, row, strict=True) if kind}
                for row in rows
            ]
            ballots = {peer: vote(self.roster, views) for peer, views in zip(inside, held, strict=True)}
            known = dict(zip(ballots.values(), held, strict=True))
            certified = set(self._certify(ballots, known, serial))
            for places in product(self._places(ballots), repeat=len(self.cheats)):
                self.states += 1
                yield certified | {
                    outcome
                    for ballot in known
                    if (outcome := self._conclude(own, ballots, known, places, ballot, serial)) is not None
                }

    def _certify(
        self, ballots: Mapping[PeerId, Ballot], known: Mapping[Ballot, Views], serial: int
    ) -> Iterator[Outcome]:
        for choice in product((None, *known), repeat=len(self.cheats)):
            signed = ballots | {c: ballot for c, ballot in zip(self.cheats, choice, strict=True) if ballot is not None}
            votes = {peer: self.vote(peer, item, serial) for peer, item in signed.items()}
            found = recovery.find_certificate(self.roster, votes)
            if found is not None:
                views = known[Ballot(found[0], found[1])]
                self._replay(found[2])
                yield self.decide(views, serial, (), ())

    def _replay(self, votes: tuple[SignedMessage, ...]) -> None:
        """Show a certificate to a member of the next attempt.

        Raises:
            Divided: it takes it for one of its own attempt.
        """
        stage = Stage(0, ATTEMPT + 1, *votes[0].slot.stage[2:])
        for roster in (self.roster, *self.next_rosters):
            counted = {vote.sender: vote for vote in votes if self.rules.belongs(vote, roster, stage)}
            if recovery.find_certificate(roster, counted) is not None:
                raise Divided(votes)

    def _places(self, ballots: Mapping[PeerId, Ballot]) -> list[str | tuple[str, Ballot]]:
        other = Ballot((), b"o" * 32)
        return ["none", "two", *product(self.shown, (*dict.fromkeys(ballots.values()), other))]

    def _conclude(
        self,
        own: Views,
        ballots: Mapping[PeerId, Ballot],
        known: Mapping[Ballot, Views],
        places: tuple[str | tuple[str, Ballot], ...],
        ballot: Ballot,
        serial: int,
    ) -> Outcome | None:
        """What a member settles without a certificate, as swarm/recovery.py does; cheats conclude with anybody."""
        vector, agreed = dict(ballots), dict(own)
        for peer, place in zip(self.cheats, places, strict=True):
            if isinstance(place, tuple):
                vector[peer], agreed[peer] = place[1], self.view(peer, place[0], serial)
        if len(own) + len(self.cheats) < self.roster.majority or not agreement.can_settle(self.roster, vector, ballot):
            return None
        elected = agreement.find_elected(self.roster, vector)
        if elected is not None:
            return self.decide(known[elected], serial, (), ()) if elected in known else None
        split = tuple(peer for peer, place in zip(self.cheats, places, strict=True) if place == "two")
        unvoted = agreement.find_unvoted(self.roster, vector, split, self.tolerated)
        return self.decide(agreed, serial, unvoted, split)


class Divided(Exception):
    """Honest members disagree; it says by what."""


def explore_boundary(size: int, rules: Rules = Rules(), shown: tuple[str, ...] = (WHOLE, OWN)) -> Found:
    """Return whether all honest members always come to one roster for the next attempt, with all of them in it."""
    model = Boundary(size, rules, shown)
    try:
        for serial in (0, 1):
            for kinds in combinations_with_replacement((WHOLE, PART, OWN), len(model.honest)):
                _require_one_roster(model, kinds, serial)
    except Divided as divided:
        return Found(model.states, divided)
    return Found(model.states)


def _require_one_roster(model: Boundary, kinds: tuple[str, ...], serial: int) -> None:
    """Raise Divided unless all courses of a recovery lead everyone to one roster, or leave everyone where it is."""
    inside = tuple(kind for kind in kinds if kind != WHOLE) if model.rules.acts_at_once else kinds
    for outcomes in model.recover(inside, serial) if inside else ():
        if any(set(leaving) & set(model.honest) or (agreed and WHOLE not in kinds) for leaving, agreed in outcomes):
            raise Divided(kinds, outcomes)
        for next_roster in model.next_rosters:
            gone = {next_roster} if len(inside) < len(kinds) else set()
            settled = {next_roster if agreed else model.roster.without(leaving) for leaving, agreed in outcomes}
            if len(gone | (settled - {model.roster})) > 1 or len(settled) > 1:
                raise Divided(kinds, outcomes, next_roster)


def main() -> None:
    """Explore the larger bound, in which cheats may claim to hold what honest members have said, too: for minutes."""
    for size in (3, 4, 5):
        found = explore_boundary(size, shown=(WHOLE, PART, OWN))
        print(f"boundary, n={size}, three views: {found.states} states, disagreement: {found.disagreement}")  # noqa: T201
        assert found.disagreement is None


if __name__ == "__main__":
    main()
