"""
What calls for a recovery: the HALTs held, whether they have a reason, and what they prove (attacks B1).

Whether a HALT counts depends only on the HALTs and VIEWs themselves, on the roster, and on the marked pairs that
settlements have shown to all; the first are relayed: members come to the same within Δ. What its sender says of its
place decides nothing.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from btard.identity import PeerId
from btard.rules.config import RunConfig
from btard.rules.marks import Marks
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.rules.recovery import Equivocation, belongs
from btard.swarm.broadcast import Broadcast
from btard.swarm.settlement import Messages, open_evidence


class Calls:
    """The messages of the recovery in progress; the round keeps ``marks`` up to date, all pairs that we know."""

    def __init__(self, config: RunConfig, broadcast: Broadcast) -> None:
        self._config, self._broadcast = config, broadcast
        self.marks = Marks()
        self._opened: dict[bytes, Collection[Equivocation]] = {}

    def stage(self, phase: Phase) -> Stage:
        """The stage of a phase of the recovery in progress."""
        place = self._broadcast.place
        return Stage(0, place.attempt, phase, place.serial)

    def held(self, phase: Phase) -> dict[PeerId, SignedMessage]:
        """What members said in a phase of it."""
        roster, stage = self._broadcast.place.roster, self.stage(phase)
        return {peer: item for peer, item in self._broadcast.board.of(stage).items() if belongs(item, roster, stage)}

    def find_halt(self) -> SignedMessage | None:
        """A HALT that starts the recovery, if there is one."""
        halts = self.held(Phase.HALT)
        if not halts:
            return None
        return next((halts[peer] for peer in sorted(halts) if self._counts(halts[peer], halts)), None)

    def _counts(self, halt: SignedMessage, halts: Mapping[PeerId, SignedMessage]) -> bool:
        """Whether a HALT starts a recovery: it has a reason, or f+1 members want the recovery (attacks B1).

        A reason is an equivocation, or a missing member with whom the sender is no marked pair that all have in common.
        Nobody is in a pair with itself, and nobody can be missing to itself.
        """
        assert isinstance(halt.payload, Halt)
        roster, marks = self._broadcast.place.roster, self._broadcast.place.common
        enough = roster.tolerated(self._config.byzantine_bound) + 1
        named = Counter(peer for item in halts.values() for peer in _find_named(item))
        has_reason = any(
            peer in roster and (named[peer] >= enough or not marks.is_marked(halt.sender, peer))
            for peer in _find_named(halt)
        )
        entered = self.held(Phase.VIEW).keys() - {self._broadcast.me}
        return has_reason or len(entered) >= enough or bool(self._find_shown(halts))

    def can_halt_over(self, missing: Collection[PeerId]) -> bool:
        """Whether a HALT of ours over these is one to which others listen, as far as all know the same marks."""
        place, me = self._broadcast.place, self._broadcast.me
        outcast = place.common.find_overmarked(place.roster, place.roster.tolerated(self._config.byzantine_bound))
        return any(peer in outcast or not place.common.is_marked(me, peer) for peer in missing)

    def _find_shown(self, halts: Messages) -> dict[PeerId, Equivocation]:
        """What HALTs prove against members: everyone who gets them relayed sees the same, and can show it on."""
        known = self._opened
        self._opened = {
            item.digest: known[item.digest]
            if item.digest in known
            else open_evidence(self._config, item.payload.evidence)
            for item in halts.values()
            if isinstance(item.payload, Halt)
        }
        shown = [item for evidence in self._opened.values() for item in evidence]
        return {item.culprit: item for item in shown if item.culprit in self._broadcast.place.roster}

    def find_equivocations(self) -> tuple[Equivocation, ...]:
        """What we hold against members, or HALTs show."""
        roster = self._broadcast.place.roster
        ours = {item.culprit: item for item in self._broadcast.board.equivocations() if item.culprit in roster}
        found = self._find_shown(self.held(Phase.HALT)) | ours
        return tuple(found[peer] for peer in sorted(found))


def _find_named(halt: SignedMessage) -> set[PeerId]:
    """The others whom a HALT calls missing."""
    assert isinstance(halt.payload, Halt)
    return {PeerId(peer) for peer in halt.payload.missing} - {halt.sender}
