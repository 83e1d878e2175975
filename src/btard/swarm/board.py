"""
The board: verified messages by slot, and the proof when somebody fills a slot twice.

Rules of this file

1. Only verified messages are posted; the first of a slot stays, a second with other bytes is evidence.
2. Nothing is kept beyond a window of rounds and attempts, and one message per slot: a flood is bounded.
"""

from collections.abc import Callable, Mapping

import trio

from btard.identity import PeerId
from btard.rules.messages import Phase, SignedMessage, Slot, Stage
from btard.rules.recovery import Equivocation, is_equivocation

RECOVERY_PHASES = frozenset({Phase.HALT, Phase.VIEW, Phase.BALLOT})
ROUNDS_KEPT = 2
SERIALS_AHEAD = 1
ATTEMPTS_AHEAD = 1


class Board:
    """Messages of the rounds in progress, and a signal whenever something new is posted."""

    def __init__(self) -> None:
        self._messages: dict[Stage, dict[PeerId, SignedMessage]] = {}
        self._equivocations: dict[Slot, Equivocation] = {}
        self._changed = trio.Event()

    def post(self, message: SignedMessage) -> None:
        """Keep a verified message; a second one with other bytes for its slot becomes evidence."""
        known = self._messages.setdefault(message.slot.stage, {}).setdefault(message.sender, message)
        if is_equivocation(known, message):
            self._equivocations.setdefault(message.slot, Equivocation(known, message))
        self.signal()

    def of(self, stage: Stage) -> Mapping[PeerId, SignedMessage]:
        """The messages held of a stage, by sender."""
        return self._messages.get(stage, {})

    def versions(self, slot: Slot) -> tuple[SignedMessage, ...]:
        """The messages held of a slot: none, one, or the two by which its owner is convicted."""
        if slot in self._equivocations:
            return self._equivocations[slot].first, self._equivocations[slot].second
        message = self.of(slot.stage).get(slot.sender)
        return () if message is None else (message,)

    def equivocations(self) -> tuple[Equivocation, ...]:
        """What is proven so far, the earliest slot of each culprit, in order of culprit."""
        first: dict[PeerId, Equivocation] = {}
        for item in sorted(self._equivocations.values(), key=lambda item: item.order):
            first.setdefault(item.culprit, item)
        return tuple(first[peer] for peer in sorted(first))

    def find_speakers(self, is_wanted: Callable[[Stage], bool]) -> frozenset[PeerId]:
        """The senders of messages held of wanted stages."""
        return frozenset(peer for stage, held in self._messages.items() if is_wanted(stage) for peer in held)

    def signal(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    def forget(self, before_round: int, before_attempt: int) -> None:
        """Drop messages of older rounds, and of recoveries of older attempts."""
        self._messages = {
            stage: held
            for stage, held in self._messages.items()
            if (stage.attempt >= before_attempt if stage.phase in RECOVERY_PHASES else stage.round >= before_round)
        }
        self._equivocations = {slot: item for slot, item in self._equivocations.items() if item.stage in self._messages}


def is_in_window(stage: Stage, round_number: int, attempt: int, serial: int) -> bool:
    """Return whether a message of ``stage`` may be of use to a peer that works on ``round_number``."""
    if stage.phase in RECOVERY_PHASES:
        near = stage.attempt > attempt or stage.serial <= serial + SERIALS_AHEAD
        return stage.round == 0 and attempt <= stage.attempt <= attempt + ATTEMPTS_AHEAD and near
    return (
        stage.serial <= 1
        and round_number - ROUNDS_KEPT < stage.round <= round_number + 1
        and stage.attempt <= attempt + ATTEMPTS_AHEAD
    )
