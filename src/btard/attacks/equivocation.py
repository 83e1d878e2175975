"""Attack on agreement: two different messages for one slot."""

from typing import Any

from msgspec.structs import replace

from btard.attacks.attacker import Attacker, choose
from btard.identity import Context, Identity, PeerId, digest
from btard.rules.messages import (
    AnyPayload,
    Attest,
    Ballot,
    Commit,
    Conclude,
    Halt,
    Phase,
    SignedMessage,
    Slot,
    Stage,
    View,
    Vote,
)
from btard.wire import sign_message


class Equivocate(Attacker):
    """Signs a second version of its message of one phase, and sends that to every other recipient."""

    def __init__(self, first_round: int, *, phase: Phase = Phase.CHECK) -> None:
        super().__init__(first_round)
        self._phase = phase
        self._told: dict[Slot, dict[PeerId, bytes]] = {}

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return one of two versions; whoever is told twice is told the same."""
        stage = message.slot.stage
        if not self.splits(stage):
            return message.envelope
        told = self._told.setdefault(message.slot, {})
        if recipient not in told:
            is_second = self.is_told_other(stage, recipient, len(told))
            told[recipient] = sign_another(message, identity, run_id) if is_second else message.envelope
            if is_second:
                self.note_act(self.round_of(stage))
        return told[recipient]

    def splits(self, stage: Stage) -> bool:
        """Return whether to say two things in this stage."""
        return stage.phase is self._phase and (stage.round == 0 or self.is_due(stage.round))

    def is_told_other(self, stage: Stage, recipient: PeerId, place: int) -> bool:
        """Return whether a recipient, told as number ``place``, is told the second version."""
        return place % 2 == 1


class EquivocateInHalves(Equivocate):
    """Splits the others into two halves, drawn anew for every stage, in one phase a round and in all of recovery.

    All who share the seed split the same phases, and the others into the same halves.
    """

    PHASES = (Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM, Phase.AGREE)
    RARE = frozenset({Phase.PUBLISH, Phase.ATTEST, Phase.DISPUTE_PUBLISH, Phase.VOTE})
    RECOVERY = frozenset({Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE})

    def __init__(self, first_round: int, seed: int, *, phases: frozenset[Phase] | None = None) -> None:
        super().__init__(first_round)
        self._seed, self._phases = seed, phases

    def splits(self, stage: Stage) -> bool:
        """Return whether the draw of this round, or the phases that were ordered, include this one."""
        if not self.act_in(stage):
            return False
        if self._phases is not None:
            return stage.phase in self._phases
        drawn = choose(self.PHASES, self._seed, stage.round)
        return stage.phase is drawn or stage.phase in self.RECOVERY | self.RARE

    def is_told_other(self, stage: Stage, recipient: PeerId, place: int) -> bool:
        """Return the recipient's half."""
        return choose((True, False), self._seed, tuple(stage), recipient)


def sign_another(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
    """Return the envelope of another message for the same slot, as valid as the first."""
    payload = alter(message.payload)
    previous = message.previous if payload != message.payload else _invert(message.previous)
    return sign_message(identity, run_id, message.roster, message.slot.stage, previous, payload).envelope


def alter(payload: AnyPayload) -> AnyPayload:
    """Return a payload that is as valid and says something else; the same where there is nothing to say."""
    changes: dict[str, Any] = {}
    match payload:
        case Commit(root=root):
            changes = {"root": _invert(root)} if root else {"goodbye": not payload.goodbye}
        case Attest(held=held):
            changes = {"held": tuple(not item for item in held)}
        case Vote(opinions=opinions):
            changes = {"opinions": tuple(replace(opinion, guilty=(), silent=()) for opinion in opinions)}
        case Halt():
            changes = {"missing": ()}
        case View():
            changes = {"overdue": not payload.overdue}
        case Ballot() | Conclude():
            changes = {"views": _invert(payload.views)}
        case _ if hasattr(payload, "nonce"):
            changes = {"nonce": _invert(payload.nonce)}
    return replace(payload, **changes)


def _invert(value: bytes) -> bytes:
    return digest(Context.EXPAND, b"equivocation", value)
