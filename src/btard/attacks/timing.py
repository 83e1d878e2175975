"""Attacks by time and place: too late for some, gone in the middle, here and not here."""

import trio

from btard.attacks.attacker import Attacker, Vanished, choose
from btard.identity import Identity, PeerId
from btard.rules.config import RunConfig
from btard.rules.messages import Phase, SignedMessage, Slot, Stage
from btard.swarm.frames import Kind
from btard.swarm.services import Deadlines


class LastMoment(Attacker):
    """Sends its messages to half of the others at once, and to the other half just before their deadlines (A6)."""

    def __init__(self, first_round: int, seed: int, config: RunConfig, *, gradient_ms: int = 100) -> None:
        super().__init__(first_round)
        self._seed, self._delay_s = seed, config.delay_s
        self._deadlines = Deadlines.of(config, gradient_ms)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message for some; send it later to the others."""
        stage = message.slot.stage
        is_late = choose((True, False), self._seed, self.round_of(stage), recipient)
        if not is_late or not self.act_in(stage) or self.nursery is None:
            return message.envelope
        self.note_act(self.round_of(stage))
        margin = choose((0.0, 0.1, 0.5, 1.0), self._seed, tuple(stage), recipient) * self._delay_s
        self.nursery.start_soon(self._send_later, recipient, message.envelope, self._wait(stage) - margin)
        return None

    def _wait(self, stage: Stage) -> float:
        if stage.round == 0:
            return 2 * self._delay_s
        longer = {Phase.AGGREGATE: self._deadlines.bulk, Phase.REVEAL: self._deadlines.bulk}
        return longer.get(stage.phase, self._deadlines.check)

    async def _send_later(self, recipient: PeerId, envelope: bytes, wait_s: float) -> None:
        await trio.sleep(max(0.0, wait_s))
        if self.hub is not None:
            self.hub.send(recipient, Kind.MESSAGE, envelope)


class Crash(Attacker):
    """Tells ``told`` others its message of one phase, the rest nothing, and vanishes when the next one is due."""

    def __init__(self, first_round: int, *, phase: Phase, told: int = 0) -> None:
        super().__init__(first_round)
        self._phase, self._told = phase, told
        self._slot: Slot | None = None

    def says(self, stage: Stage) -> bool:
        """Return True.

        Raises:
            Vanished: our last message was half sent.
        """
        if self._slot is not None and stage != self._slot.stage:
            raise Vanished(f"vanished before {stage}")
        return True

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message for the first few, nothing for the others."""
        stage = message.slot.stage
        if not self.act_in(stage) or stage.phase is not self._phase or self._slot not in {None, message.slot}:
            return message.envelope
        self._slot, self._told = message.slot, self._told - 1
        self.note_act(self.round_of(stage))
        return message.envelope if self._told >= 0 else None


class Flap(Attacker):
    """Breaks the links to some of the others in every phase; what was on its way to them is lost."""

    def __init__(self, first_round: int, seed: int, *, share: int = 3) -> None:
        super().__init__(first_round)
        self._seed, self._share = seed, share
        self._broken: set[tuple[Stage, PeerId]] = set()

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, and break the link to one in ``share`` recipients once in this stage."""
        stage = message.slot.stage
        if self.hub is None or not self.act_in(stage) or (stage, recipient) in self._broken:
            return message.envelope
        if choose(range(self._share), self._seed, tuple(stage), recipient) == 0:
            self._broken.add((stage, recipient))
            self.note_act(self.round_of(stage))
            self.hub.close(recipient, "we felt like it")
        return message.envelope
