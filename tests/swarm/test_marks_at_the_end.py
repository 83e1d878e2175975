"""Two HALTs between COMMIT and AGREE mark a pair for some before, for others after they have said AGREE."""

from pathlib import Path

import msgspec
import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.evidence import DepartureKind
from btard.rules.messages import AnyPayload, Halt, Holding, Phase, Position, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Stranded
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import open_message, sign_message

ROUNDS, SIZE, CHEAT = 2, 5, 1


class MarksBetween(Conduct):
    """One cheat: says its closing COMMIT to two of four, and halts twice, as if it were in the CONFIRM before."""

    early: frozenset[PeerId] = frozenset()
    named = PeerId(bytes(32))
    run_id = b""

    def __init__(self) -> None:
        self._context: tuple[SignedMessage, Identity] | None = None
        self._is_heard = trio.Event()
        self._roster = Roster(())

    def minds_own_words(self) -> bool:
        """Sign anything."""
        return False

    async def accompany(self, hub: Hub) -> None:
        """Halt twice as soon as the first AGREE is heard."""
        receive = hub.on_control[Kind.MESSAGE]

        def hear(peer: PeerId, envelope: bytes) -> None:
            stage = open_message(self.run_id, envelope).slot.stage
            receive(peer, envelope)
            if stage.phase is Phase.AGREE and stage.round == ROUNDS + 1:
                self._is_heard.set()

        hub.on_control[Kind.MESSAGE] = hear
        await self._is_heard.wait()
        assert self._context is not None
        commit, identity = self._context
        stage = commit.slot.stage
        for serial in (0, 1):
            said = Halt(make_position(stage), (self.named,), ())
            slot = Stage(0, stage.attempt, Phase.HALT, serial)
            halt = sign_message(identity, self.run_id, self._roster.digest, slot, b"", said).envelope
            for peer in hub.connected:
                hub.send(peer, Kind.MESSAGE, halt)
            receive(identity.peer_id, halt)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Show views of a phase before, with nothing of it."""
        self._roster = roster
        if isinstance(payload, View):
            before = Position(ROUNDS, 0, int(Phase.CONFIRM), 0)
            lie = (Holding(before, tuple(b"" for _ in roster.members)),)
            return msgspec.structs.replace(payload, position=before, holdings=lie, overdue=False)
        return payload

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Keep the closing COMMIT from all but two."""
        stage = message.slot.stage
        if (stage.phase, stage.round) == (Phase.COMMIT, ROUNDS + 1):
            self._context = message, identity
            return message.envelope if recipient in self.early else None
        return message.envelope


def test_a_pair_marked_at_the_end_removes_no_honest_member(tmp_path: Path) -> None:
    """No AGREE depends on when a recovery came in between."""
    cheat = MarksBetween()
    swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=ROUNDS, genesis_size=SIZE)
    cheat.early = frozenset(swarm.identities[index].peer_id for index in (0, 2))
    cheat.named, cheat.run_id = swarm.identities[0].peer_id, swarm.config.run_id
    waits = list[Stranded]()

    def watch(index: int, event: object) -> None:
        if index == 0 and isinstance(event, Stranded):
            waits.append(event)
            if len(waits) == 4:
                swarm.stop()

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.REMOVAL).keys() <= {CHEAT}
    assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 1)
    require_sound(swarm, outcome)
