"""
The board: verified messages by slot, and the proof when somebody fills a slot twice.

Rules of this file

1. Only verified messages are posted; the first of a slot stays, a second with other bytes is evidence.
2. Nothing is kept beyond a window of rounds and attempts, one message per slot, and a number of bytes per sender
   which only what is due may exceed: a flood is bounded, and harms nobody but its author.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import trio

from btard.identity import Context, PeerId, digest
from btard.rules.messages import Phase, SignedMessage, Slot, Stage
from btard.rules.recovery import Equivocation, is_equivocation
from btard.rules.stages import LAST_SERIAL, find_later
from btard.wire import take_header

RECOVERY_PHASES = frozenset({Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE, Phase.RESUME})
ROUNDS_KEPT = 2
SERIALS_AHEAD = 1
ATTEMPTS_AHEAD = 1
MESSAGE_COST = 2048  # bytes that a message is charged beyond its envelope: a short one costs as much once it is opened
MAX_BYTES = 4 << 20
"""Bytes held of one sender beyond which only what is due is kept: 100 times what an honest member says in a round."""


def yes(*_: object) -> bool:
    """Be what is always so."""
    return True


class Board:
    """Messages of the rounds in progress, and a signal whenever something new is posted."""

    def __init__(self) -> None:
        self._messages: dict[Stage, dict[PeerId, SignedMessage]] = {}
        self._second: dict[Slot, SignedMessage] = {}
        self._convicted: dict[PeerId, Equivocation] = {}  # by the earliest slot of each
        self._bytes: defaultdict[PeerId, int] = defaultdict(int)
        self._digests: dict[Stage, bytes] = {}
        self._later: dict[Stage, tuple[Stage, ...]] = {}
        self._changed, self._called = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    def post(
        self,
        message: SignedMessage,
        is_due: Callable[[Stage], bool] = yes,
        is_news: Callable[[SignedMessage, int], bool] = yes,
    ) -> None:
        """Keep a verified message; a second one with other bytes for its slot becomes evidence.

        One that is not due is kept only if its sender's messages together stay within MAX_BYTES; the first
        evidence against a sender always is, for it convicts. Whoever waits is woken by evidence, and by news;
        ``is_news`` is told how many messages of its stage are held with this one.
        """
        stage, sender = slot = message.slot
        held = self._messages.get(stage, {})
        known, spent = held.get(sender), self._bytes[sender] + _compute_cost(message)
        has_room = spent <= MAX_BYTES or is_due(stage)
        if known is None and has_room:
            if not held:
                self._messages[stage] = held
                self._later.clear()
            held[sender] = message
        elif (
            known is not None
            and is_equivocation(known, message)
            and slot not in self._second
            and (has_room or all(other.sender != sender for other in self._second))
        ):
            self._second[slot] = message
            self._convict(slot)
        else:
            return
        self._bytes[sender] = spent
        self._digests.pop(stage, None)
        if known is not None or stage.phase in RECOVERY_PHASES:
            self.call()
        elif is_news(message, len(held)):
            self.signal()

    def count_bytes(self, sender: PeerId) -> int:
        """Return the bytes held of a sender."""
        return self._bytes[sender]

    def of(self, stage: Stage) -> Mapping[PeerId, SignedMessage]:
        """The messages held of a stage, by sender."""
        return self._messages.get(stage, {})

    def versions(self, slot: Slot) -> tuple[SignedMessage, ...]:
        """The messages held of a slot: none, one, or the two by which its owner is convicted."""
        held = (self.of(slot.stage).get(slot.sender), self._second.get(slot))
        return tuple(message for message in held if message is not None)

    def candidates(self, stage: Stage) -> list[Mapping[PeerId, SignedMessage]]:
        """The messages held of a stage, by sender, and behind them the second ones of those who filled a slot twice."""
        second = {slot.sender: message for slot, message in self._second.items() if slot.stage == stage}
        return [self.of(stage), second] if second else [self.of(stage)]

    def compute_digest(self, stage: Stage) -> bytes:
        """Return 32 bytes that are equal where the same is held of a stage."""
        if stage not in self._digests:
            found = self.candidates(stage)
            held = digest(Context.HELD, *(sorted(item.digest for versions in found for item in versions.values())))
            if not found[0]:
                return held
            self._digests[stage] = held
        return self._digests[stage]

    def _convict(self, slot: Slot) -> None:
        item = Equivocation(*map(take_header, self.versions(slot)))
        if slot.sender not in self._convicted or item.order < self._convicted[slot.sender].order:
            self._convicted[slot.sender] = item

    def equivocations(self) -> tuple[Equivocation, ...]:
        """What is proven so far, the earliest slot of each culprit, in order of culprit."""
        return tuple(self._convicted[peer] for peer in sorted(self._convicted))

    def messages_of(self, peer: PeerId) -> tuple[SignedMessage, ...]:
        """The messages held of ``peer``, those of a later attempt after those of an earlier one."""
        held = [messages[peer] for messages in self._messages.values() if peer in messages]
        return tuple(sorted(held, key=lambda message: (message.slot.stage.attempt, message.slot.stage)))

    def find_later(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages held to which a run comes after ``stage``."""
        if stage not in self._later:
            self._later[stage] = find_later(self._messages, stage)
        return self._later[stage]

    def find_speakers(self, stages: Iterable[Stage]) -> frozenset[PeerId]:
        """The senders of messages held of any of the stages."""
        return frozenset(peer for stage in stages for peer in self.of(stage))

    def signal(self) -> None:
        """Wake everyone who waits for a change; none that concerns a recovery has happened."""
        self._changed.unpark_all()

    def call(self) -> None:
        """Wake everyone, the recovery as well."""
        self._changed.unpark_all()
        self._called.unpark_all()

    async def changed(self) -> None:
        """Return at the next change."""
        await self._changed.park()

    async def called(self) -> None:
        """Return at the next change that may concern a recovery: ordinary messages and private data do not."""
        await self._called.park()

    def forget(self, before_round: int, before_attempt: int) -> None:
        """Drop messages of older rounds, and of recoveries of older attempts."""
        gone = [
            stage
            for stage in self._messages
            if (stage.attempt < before_attempt if stage.phase in RECOVERY_PHASES else stage.round < before_round)
        ]
        for stage in gone:
            for sender, message in self._messages.pop(stage).items():
                self._bytes[sender] -= _compute_cost(message)
            self._digests.pop(stage, None)
        self._later.clear()
        gone_twice = [slot for slot in self._second if slot.stage not in self._messages]
        for slot in gone_twice:
            self._bytes[slot.sender] -= _compute_cost(self._second.pop(slot))
        if gone_twice:
            self._convicted.clear()
            for slot in self._second:
                self._convict(slot)


def _compute_cost(message: SignedMessage) -> int:
    return len(message.envelope) + MESSAGE_COST


def is_in_window(stage: Stage, round_number: int, attempt: int, serial: int) -> bool:
    """Return whether a message of ``stage`` may be of use to a peer that works on ``round_number``."""
    if stage.phase in RECOVERY_PHASES:
        near = stage.attempt > attempt or stage.serial <= serial + SERIALS_AHEAD
        return stage.round == 0 and attempt <= stage.attempt <= attempt + ATTEMPTS_AHEAD and near
    return (
        stage.serial <= LAST_SERIAL
        and round_number - ROUNDS_KEPT < stage.round <= round_number + 1
        and stage.attempt <= attempt + ATTEMPTS_AHEAD
    )
