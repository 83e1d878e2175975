"""What all attackers share: honest until a given round, and a note of when they first cheated."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from btard.errors import BtardError
from btard.identity import Context, PeerId, digest
from btard.net import Hub
from btard.rules.messages import Stage
from btard.swarm.conduct import Conduct

T = TypeVar("T")


def _tell_nobody(round_number: int) -> None:
    """Be the default of ``on_first_act`` and ``on_taken_back``."""


class Vanished(BtardError):
    """The attacker ended its own process on purpose, at the very point where this was raised."""


class Attacker(Conduct):
    """A conduct that is honest before ``first_round``.

    ``acted_in_round`` is the round in which it first did what an honest peer would not, None until
    then; ``on_first_act`` is called with that round once, possibly from a worker thread, and ``on_taken_back``
    if that turns out to have changed nothing. ``kind`` is the name by which it was ordered. While its peer takes
    part it has the peer's ``hub``, through which it may send what it likes, and a ``nursery`` for what it does later.
    """

    kind = ""

    def __init__(self, first_round: int) -> None:
        self.first_round = first_round
        self.acted_in_round: int | None = None
        self.on_first_act: Callable[[int], None] = _tell_nobody
        self.on_taken_back: Callable[[int], None] = _tell_nobody
        self.hub: Hub | None = None
        self.nursery: trio.Nursery | None = None
        self.newest_round = 0

    async def accompany(self, hub: Hub) -> None:
        """Hold the hub and a nursery until cancelled."""
        try:
            async with trio.open_nursery() as self.nursery:
                self.hub = hub
                await trio.sleep_forever()
        finally:
            self.hub = self.nursery = None

    def minds_own_words(self) -> bool:
        """Return False: a cheat signs what it likes, wherever it likes."""
        return False

    @property
    def victims(self) -> tuple[PeerId, ...]:
        """Whoever there is a link to, in order."""
        return tuple(sorted(self.hub.connected)) if self.hub else ()

    def round_of(self, stage: Stage) -> int:
        """Return the round that a stage belongs to; recovery belongs to the newest round seen here."""
        self.newest_round = max(self.newest_round, stage.round)
        return stage.round or self.newest_round

    def act_in(self, stage: Stage) -> bool:
        """Return whether the attack has begun by this stage."""
        return self.is_due(self.round_of(stage))

    def is_due(self, round_number: int) -> bool:
        """Return whether the attack has begun."""
        return round_number >= self.first_round

    def note_act(self, round_number: int) -> None:
        """Remember and announce the first act."""
        if self.acted_in_round is None:
            self.acted_in_round = round_number
            self.on_first_act(round_number)

    def take_back(self, round_number: int) -> None:
        """Count no act of this round: the attempt in which it was is void, so it changed nothing."""
        if self.acted_in_round == round_number:
            self.acted_in_round = None
            self.on_taken_back(round_number)


def choose(options: Sequence[T], *reasons: object) -> T:
    """Return one of the options, the same for equal reasons on every machine."""
    number = digest(Context.EXPAND, b"attack", repr(reasons).encode())
    return options[int.from_bytes(number[:8], "little") % len(options)]


def prefer(peers: Sequence[PeerId], *reasons: object) -> PeerId | None:
    """Return the peer that all who share the reasons would choose first, whomever else each can reach."""
    return min(peers, key=lambda peer: digest(Context.EXPAND, b"prefer", repr(reasons).encode(), peer), default=None)
