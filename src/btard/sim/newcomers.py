"""
What must hold of those who join midway (design section 6), checked from outside as the other invariants are.

The rules of admission are written here once more, from the design and not from the code under test. What a
peer says of a round is final once it has finished the next one, so every step is looked at between two final seals.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from btard.rules.seal import Candidate, Seal
from btard.sim.checkers import Accountability, Balance, Checker, Invariant, Truth
from btard.swarm.events import Event, RoundDone

CHECKED_LATER = 3
"""Rounds before a promotion whose work is checked and charged after it: then a member is banned."""
MOST_WAITS = 24
"""Rounds that admit somebody and find nobody, while an honest stranger is there. It shows its ticket again after 15Δ at
most if it failed four times; a round takes 0.75Δ at least."""
WORTHLESS = "foreign-ticket"
"""The kind of strangers that show nothing by which anybody could be admitted; false tickets may be good by luck."""


@dataclass
class Way:
    """How far a stranger has come: rounds of its admission and promotion, and what it worked, by the seals."""

    arrived: int
    admitted: int | None = None
    promoted: int | None = None
    lapsed: int | None = None
    counted: list[int] = field(default_factory=list)
    log_odds: float = 0.0
    skipped: int = 0
    waits: int = 0


class FinalSeals:
    """The seals of a run in their order, each once, as soon as an honest peer has finished the round after its own."""

    def __init__(self, take: Callable[[Seal, Seal], None]) -> None:
        self._take, self._latest, self._newest = take, dict[int, Seal](), dict[int, Seal]()

    def observe(self, index: int, event: Event) -> None:
        """Take in what an honest peer tells."""
        if not isinstance(event, RoundDone):
            return
        seal, before = event.result.seal, self._latest.get(index)
        self._latest[index] = seal
        if before is None or before.round != seal.round - 1 or before.round in self._newest:
            return
        self._newest[before.round] = before
        if (earlier := self._newest.get(before.round - 1)) is not None:
            self._take(earlier, before)


class Admissions(Checker):
    """Nobody comes in but by the rules, and whoever skips its work no oftener than chance explains.

    ``find_skips`` tells, by peer, the rounds in which a cheat did no work; the seals tell which of these counted.
    Only where the honest are more than half, and nothing splits them.
    """

    invariant = Invariant.ACCOUNTABILITY

    def __init__(self, truth: Truth, find_skips: Callable[[], Mapping[int, Collection[int]]]) -> None:
        super().__init__(truth)
        self._find_skips, self._balance = find_skips, Balance(truth)
        self._seals = FinalSeals(self._compare)
        self.ways: dict[int, Way] = {}

    def arrive(self, index: int, round_number: int) -> None:
        """Take note that a stranger comes, for the first time or again."""
        self.ways[index] = Way(round_number)

    def observe(self, index: int, event: Event) -> None:
        """Compare the seals that are final by now."""
        self._balance.note(event)
        self._seals.observe(index, event)

    def _compare(self, before: Seal, after: Seal) -> None:
        if not self._balance.is_kept or self.truth.entrance is None:
            return
        for problem in find_breaches(self.truth, before, after):
            self.fail(after.round, problem)
        earlier, later = by_peer(before), by_peer(after)
        for index, way in self.ways.items():
            peer = self.truth.peers[index]
            self._follow(index, way, after, earlier.get(peer), later.get(peer), is_member=peer in after.roster)
            if way.promoted == after.round:
                self._judge_odds(index, way, after)

    def _follow(
        self, index: int, way: Way, seal: Seal, before: Candidate | None, after: Candidate | None, *, is_member: bool
    ) -> None:
        """Note how far a stranger has come by a seal: admitted, at work, promoted, or no candidate any more."""
        if before is None and after is not None:
            way.admitted, way.promoted, way.lapsed, way.counted, way.skipped = seal.round, None, None, [], 0
            way.log_odds = 0.0
            if self.truth.adversaries.get(index) == WORTHLESS:
                self.fail(seal.round, f"stranger {index} was admitted without a ticket")
        if before is not None and (is_member or (after is not None and after.worked > before.worked)):
            way.counted.append(seal.round - 1)
        if before is not None and after is None and way.promoted is None:
            if is_member:
                way.promoted = seal.round
            else:
                way.lapsed = seal.round

    def _judge_odds(self, index: int, way: Way, seal: Seal) -> None:
        """How likely was it that no honest member was drawn to check any round that this one skipped?"""
        entrance, skips = self.truth.entrance, self._find_skips().get(index, ())
        assert entrance is not None
        numbers = [self.truth.find(peer) for peer in seal.roster]
        present = [number for number in numbers if number is not None and number != index]
        honest = len(self.truth.stable & set(present)) if self.truth.is_synchronous else 0
        skipped = [number for number in way.counted if number in skips]
        way.skipped = len(skipped)
        judged = [number for number in skipped if number <= seal.round - 1 - CHECKED_LATER]
        missed = 1 - entrance.check_rate * honest / len(present)
        way.log_odds = len(judged) * math.log(missed) if missed > 0 else -math.inf if judged else 0.0
        if way.log_odds < Accountability.LEAST_LOG_ODDS:
            self.fail(seal.round, f"stranger {index} skipped {len(judged)} checked rounds and was promoted")


class Welcome(Checker):
    """An honest stranger is admitted unless others take the places, and does not lapse; under synchrony only."""

    invariant = Invariant.PROGRESS

    def __init__(self, truth: Truth, ways: Mapping[int, Way]) -> None:
        super().__init__(truth)
        self._ways, self._balance, self._seals = ways, Balance(truth), FinalSeals(self._compare)

    def observe(self, index: int, event: Event) -> None:
        """Compare the seals that are final by now."""
        self._balance.note(event)
        self._seals.observe(index, event)

    def _compare(self, before: Seal, after: Seal) -> None:
        if not (self.truth.is_synchronous and self._balance.is_kept) or self.truth.entrance is None:
            return
        earlier, later = by_peer(before), by_peer(after)
        is_unused = count_free(self.truth, before) > 0 and not later.keys() - earlier.keys()
        for index in sorted(self._ways.keys() & self.truth.stable):
            peer, way = self.truth.peers[index], self._ways[index]
            if peer in earlier and peer not in {*later, *after.roster}:
                self.fail(after.round, f"honest stranger {index} did not come through probation")
            is_waiting = peer not in {*earlier, *later, *before.roster} and before.round > way.arrived
            if is_waiting and is_unused:
                way.waits += 1
                if way.waits == MOST_WAITS:
                    self.fail(after.round, f"honest stranger {index} is not admitted, although places are free")


def by_peer(seal: Seal) -> Mapping[bytes, Candidate]:
    """The candidates of a seal by their keys."""
    return {item.peer: item for item in seal.candidates}


def count_free(truth: Truth, seal: Seal) -> int:
    """How many the round after a seal may admit: ⌈n/4⌉ on probation at once, max(1, n/16) an epoch."""
    assert truth.entrance is not None
    size, begins = len(seal.roster), (seal.round + 1) % truth.entrance.state_interval == 0
    admitted = 0 if begins else seal.admitted
    return max(0, min(-(-size // 4) - len(seal.candidates), max(1, size // 16) - admitted))


def find_breaches(truth: Truth, before: Seal, after: Seal) -> list[str]:
    """Return what two seals that follow each other say that the rules of admission do not allow."""
    assert truth.entrance is not None
    earlier, later = by_peer(before), by_peer(after)
    joined = sorted(set(after.roster) - set(before.roster))
    new = sorted(later.keys() - earlier.keys())
    problems = [f"{_name(truth, peer)} is a member and was never a candidate" for peer in joined if peer not in earlier]
    problems += [
        f"{_name(truth, peer)} was promoted after {earlier[peer].worked + 1} rounds"
        for peer in joined
        if peer in earlier and earlier[peer].worked + 1 < truth.entrance.probation
    ]
    if len(joined) > 1:
        problems.append(f"{len(joined)} became members at once")
    if len(new) > count_free(truth, before):
        problems.append(f"{len(new)} were admitted where {count_free(truth, before)} might be")
    problems += [f"{_name(truth, peer)} was admitted, and is nobody" for peer in new if truth.find(peer) is None]
    problems += [f"{_name(truth, peer)} is a candidate and a member" for peer in new if peer in before.roster]
    problems += [
        f"{_name(truth, item.peer)} worked {item.worked} rounds after {earlier[item.peer].worked}"
        for item in after.candidates
        if item.peer in earlier and not 0 <= item.worked - earlier[item.peer].worked <= 1
    ]
    banned = set(before.banned) & {*later, *joined}
    return problems + [f"{_name(truth, peer)} is banned and comes in" for peer in sorted(banned)]


def _name(truth: Truth, peer: bytes) -> str:
    index = truth.find(peer)
    return f"key {peer.hex()[:16]}" if index is None else f"stranger {index}"
