"""
The fallback of one recovery: Dolev–Strong on everyone's view and ballot, fed by what arrives (rules/dolev_strong.py).

Its first step is the broadcast of view and ballot itself, so it costs nothing where a certificate forms; chains are
sent only from the second step on. A member countersigns only what it holds in full (attacks C3).
"""

from collections.abc import Mapping
from itertools import product

import trio

from btard.identity import PeerId
from btard.rules.dolev_strong import MAX_VALUES, Extraction, find_split, find_step, find_vector
from btard.rules.messages import Ballot, Phase, SignedMessage, Slot, Stage
from btard.rules.recovery import belongs
from btard.rules.roster import Roster
from btard.swarm.broadcast import Broadcast
from btard.swarm.frames import Kind
from btard.wire import Cast


class Fallback:
    """What this member has taken of everyone in one recovery, which it entered when this was made."""

    def __init__(self, broadcast: Broadcast, stage: Stage, tolerated: int, delay_s: float) -> None:
        self._broadcast, self._tolerated, self._delay_s = broadcast, tolerated, delay_s
        self._roster: Roster = broadcast.place.roster
        self._stage, self._entered = stage, trio.current_time()
        self._extractions: dict[PeerId, Extraction] = {}
        self._casts: dict[bytes, Cast] = {}
        self._has_begun = False

    def begin(self) -> None:
        """Close the first step: take what came by itself, and pass on with a countersignature all that was taken."""
        for sender in self._roster.members:
            slots = (Slot(self._stage._replace(phase=phase), sender) for phase in (Phase.VIEW, Phase.BALLOT))
            pairs = product(*(self._broadcast.board.versions(slot) for slot in slots))
            for view, ballot in list(pairs)[:MAX_VALUES]:
                self._take(Cast(view, ballot), 1)
        self._has_begun = True
        for cast in list(self._casts.values()):
            self._pass_on(cast)

    def receive(self, cast: Cast) -> None:
        """Take a chain if it is of this recovery and came in its step."""
        step = find_step(trio.current_time() - self._entered, self._delay_s)
        if self._take(cast, step) and self._has_begun:
            self._pass_on(cast)

    def _is_ours(self, message: SignedMessage, phase: Phase) -> bool:
        return belongs(message, self._roster, self._stage._replace(phase=phase))

    def _take(self, cast: Cast, step: int) -> bool:
        if not (self._is_ours(cast.view, Phase.VIEW) and self._is_ours(cast.ballot, Phase.BALLOT)):
            return False
        extraction = self._extractions.get(cast.sender, Extraction())
        known = self._casts.get(cast.value)
        if known is not None:
            self._casts[cast.value] = Cast(cast.view, cast.ballot, {**cast.signatures, **known.signatures})
            return False
        if not extraction.takes(self._roster, self._tolerated, step, cast.sender, cast.signers):
            return False
        self._extractions[cast.sender] = extraction.with_value(cast.value)
        self._casts[cast.value] = cast
        for message in (cast.view, cast.ballot):
            self._broadcast.take(message)
        return True

    def _pass_on(self, cast: Cast) -> None:
        body = self._broadcast.countersign(cast).encode()
        for peer in self._broadcast.others:
            if peer not in cast.signers:
                self._broadcast.hub.send(peer, Kind.CHAIN, body)

    def find_vector(self) -> dict[PeerId, Cast]:
        """The view and ballot of everyone who has exactly one of each: after the last step the same everywhere."""
        return {sender: self._casts[value] for sender, value in find_vector(self._extractions).items()}

    def find_split(self) -> tuple[PeerId, ...]:
        """Who showed two views or two ballots: after the last step known to all."""
        return find_split(self._extractions)


def read_ballots(vector: Mapping[PeerId, Cast]) -> dict[PeerId, Ballot]:
    """Return the ballots in a vector."""
    return {peer: cast.ballot.payload for peer, cast in vector.items() if isinstance(cast.ballot.payload, Ballot)}
