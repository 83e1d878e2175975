"""Attacks on signatures: bytes that nobody signed, or that were signed for another place."""

from collections.abc import Callable

from btard.attacks.attacker import Attacker, choose
from btard.attacks.hearing import Eavesdrop
from btard.identity import Context, Identity, PeerId, digest
from btard.rules.messages import SignedMessage, Slot, Stage
from btard.swarm.frames import Kind
from btard.wire import sign_message

Forgery = Callable[[SignedMessage, Identity, bytes], bytes]


def spoil_signature(message: SignedMessage, _identity: Identity, _run_id: bytes) -> bytes:
    """Return the envelope with one bit of its signature flipped."""
    return message.envelope[:-1] + bytes([message.envelope[-1] ^ 1])


def truncate(message: SignedMessage, _identity: Identity, _run_id: bytes) -> bytes:
    """Return the envelope without its last bytes."""
    return message.envelope[:-8]


def spoil_body(message: SignedMessage, _identity: Identity, _run_id: bytes) -> bytes:
    """Return the envelope with one bit of what was signed flipped."""
    middle = len(message.envelope) // 2
    return message.envelope[:middle] + bytes([message.envelope[middle] ^ 1]) + message.envelope[middle + 1 :]


def sign_for_another_run(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
    """Return the message signed for a run that does not exist."""
    other = digest(Context.EXPAND, b"another run", run_id)
    return sign_message(identity, other, message.roster, message.slot.stage, message.previous, message.payload).envelope


def sign_with_another_key(message: SignedMessage, _identity: Identity, run_id: bytes) -> bytes:
    """Return the message signed by a stranger."""
    stranger = Identity(digest(Context.EXPAND, b"a stranger", message.sender))
    return sign_message(
        stranger, run_id, message.roster, message.slot.stage, message.previous, message.payload
    ).envelope


FORGERIES: dict[str, Forgery] = {
    "signature": spoil_signature,
    "truncated": truncate,
    "body": spoil_body,
    "run": sign_for_another_run,
    "key": sign_with_another_key,
}


class Forge(Attacker):
    """Sends some of the others bytes with a bad signature in place of its messages."""

    def __init__(self, first_round: int, seed: int, *, forgery: str = "") -> None:
        super().__init__(first_round)
        self._seed, self._forgery = seed, forgery

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message for every other recipient, a forgery for the rest."""
        stage = message.slot.stage
        if not self.act_in(stage) or choose((True, False), self._seed, tuple(stage), recipient):
            return message.envelope
        self.note_act(self.round_of(stage))
        name = self._forgery or choose(tuple(FORGERIES), self._seed, tuple(stage))
        return FORGERIES[name](message, identity, run_id)


class Impersonate(Eavesdrop):
    """Passes on messages of others with a bit changed, as if they had said something else."""

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, after a changed one of another member."""
        stage = message.slot.stage
        others = [item for slot, item in self.heard.items() if slot.sender != recipient]
        if self.hub is not None and others and self.act_in(stage):
            self.note_act(self.round_of(stage))
            self.hub.send(recipient, Kind.MESSAGE, spoil_body(others[-1], identity, run_id))
        return message.envelope


class Replay(Eavesdrop):
    """Sends old messages again: its own and others', of earlier rounds, attempts and phases, to anyone."""

    PER_MESSAGE = 3

    def __init__(self, first_round: int, run_id: bytes, seed: int) -> None:
        super().__init__(first_round, run_id)
        self._seed = seed
        self._own: dict[Slot, SignedMessage] = {}

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, after a few old ones."""
        stage = message.slot.stage
        self._own[message.slot] = message
        if self.hub is not None and self.act_in(stage):
            self.note_act(self.round_of(stage))
            old = [*self._own.values(), *self.heard.values()]
            for number in range(self.PER_MESSAGE):
                again = choose(old, self._seed, tuple(stage), recipient, number)
                self.hub.send(recipient, Kind.MESSAGE, again.envelope)
        return message.envelope


class SignElsewhere(Replay):
    """Signs its messages once more for other places: earlier and later rounds, attempts and serials."""

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, after the same for other slots; each slot is told everyone alike."""
        stage = message.slot.stage
        if self.hub is not None and self.act_in(stage):
            self.note_act(self.round_of(stage))
            for place in _find_other_places(stage):
                other = sign_message(identity, run_id, message.roster, place, message.previous, message.payload)
                self.hub.send(recipient, Kind.MESSAGE, other.envelope)
        return message.envelope


def _find_other_places(stage: Stage) -> tuple[Stage, ...]:
    """Slots that the sender will not come to by itself soon, near and far."""
    far = 1_000_000
    return (
        stage._replace(attempt=stage.attempt + far),
        stage._replace(serial=stage.serial + far),
        stage._replace(round=stage.round + far),
        stage._replace(attempt=stage.attempt + 1, serial=7),
    )
