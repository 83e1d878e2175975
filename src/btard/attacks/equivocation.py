"""Attack on agreement: two different messages for one slot."""

from typing import Any

from msgspec.structs import replace

from btard.attacks.attacker import Attacker
from btard.identity import Context, Identity, PeerId, digest
from btard.rules.messages import AnyPayload, Attest, Ballot, Commit, Halt, Phase, SignedMessage, Slot, View, Vote
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
        if stage.phase is not self._phase or not (stage.round == 0 or self.is_due(stage.round)):
            return message.envelope
        told = self._told.setdefault(message.slot, {})
        if recipient not in told:
            is_second = len(told) % 2 == 1
            told[recipient] = _sign_another(message, identity, run_id) if is_second else message.envelope
            if is_second:
                self.note_act(stage.round)
        return told[recipient]


def _sign_another(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
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
        case Ballot():
            changes = {"views": _invert(payload.views)}
        case _ if hasattr(payload, "nonce"):
            changes = {"nonce": _invert(payload.nonce)}
    return replace(payload, **changes)


def _invert(value: bytes) -> bytes:
    return digest(Context.EXPAND, b"equivocation", value)
