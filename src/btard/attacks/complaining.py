"""Attacks on patience: complaints and halts about peers that did nothing wrong."""

from msgspec.structs import replace

from btard.attacks.attacker import Attacker, prefer
from btard.attacks.hearing import Eavesdrop
from btard.identity import Identity, PeerId
from btard.rules.messages import (
    Aggregate,
    AnyPayload,
    Ballot,
    Check,
    Halt,
    Phase,
    Position,
    Report,
    Reveal,
    SignedMessage,
    Stage,
)
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.frames import Kind
from btard.wire import sign_message


class ComplainAtScatter(Eavesdrop):
    """As an aggregator, claims in every attempt that no contributor sent it anything."""

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return complaints about everyone that contributes."""
        number = self.round_of(stage)
        accused = tuple(peer for peer in self.contributors(number) if peer in roster)
        if not isinstance(payload, Aggregate) or not self.is_due(number) or not accused:
            return payload
        self.note_act(number)
        return replace(payload, root=b"", norm=0.0, missing=accused)


class ComplainAtGather(Attacker):
    """Claims in every attempt that no aggregate reached it."""

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return complaints about every part."""
        if not isinstance(payload, Reveal) or not self.act_in(stage):
            return payload
        self.note_act(stage.round)
        return replace(payload, missing=tuple(range(len(roster))))


class ComplainInCheck(Attacker):
    """Claims in every attempt, once all have all parts and the draw is known, that nobody gave it any."""

    def __init__(self, first_round: int, me: PeerId) -> None:
        super().__init__(first_round)
        self._me, self._parts = me, tuple[Part, ...]()

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return the reports, and note what there is to complain about."""
        self._parts = parts
        return reports

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return complaints about every part in place of reports."""
        is_report = isinstance(payload, Check) and payload.reports
        if not isinstance(payload, Check) or not is_report or not self.act_in(stage):
            return payload
        self.note_act(stage.round)
        missing = tuple(part.index for part in self._parts if part.elements and part.aggregator != self._me)
        return replace(payload, reports=(), missing=missing)


class HaltAlways(Attacker):
    """Halts every round without need, naming one innocent member after another, and takes part in the recovery."""

    def __init__(self, first_round: int, seed: int, *, phase: Phase = Phase.CHECK) -> None:
        super().__init__(first_round)
        self._seed, self._phase = seed, phase
        self._serials: dict[int, int] = {}
        self._halts: dict[Stage, bytes] = {}

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload; a ballot of our own tells the serial of the next recovery."""
        if isinstance(payload, Ballot):
            self._serials[stage.attempt] = stage.serial + 1
        return payload

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, and halt beside it."""
        stage = message.slot.stage
        if stage.phase is self._phase and self.act_in(stage) and self.hub is not None and self.victims:
            place = Stage(0, stage.attempt, Phase.HALT, self._serials.get(stage.attempt, 0))
            if place not in self._halts:
                self._halts[place] = self._sign_halt(message, place, identity, run_id)
                self.hub.on_control[Kind.MESSAGE](self.hub.me, self._halts[place])  # we recover like the others
                self.note_act(stage.round)
            self.hub.send(recipient, Kind.MESSAGE, self._halts[place])
        return message.envelope

    def _sign_halt(self, message: SignedMessage, place: Stage, identity: Identity, run_id: bytes) -> bytes:
        victim = prefer(self.victims, self._seed, tuple(message.slot.stage))
        assert victim is not None
        halt = Halt(Position(*map(int, message.slot.stage)), (victim,), ())
        return sign_message(identity, run_id, message.roster, place, b"", halt).envelope
