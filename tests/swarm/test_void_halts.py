"""HALTs that always count and mark nobody: one cheat halts the swarm for as long as it likes."""

from pathlib import Path

import pytest
import trio
from tests.swarm.joining_scenes import build, find, play, require_sound

from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.messages import MAX_EVIDENCE, MAX_SHOWN, Halt, Phase, SignedMessage, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Recovered
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import open_message, sign_message

ROUND, SIZE, CHEAT, SERIALS = 2, 4, 1, 12


class HaltsForNothing(Conduct):
    """One cheat: calls for the next recovery as soon as there is one, over nobody else."""

    run_id = b""
    hub: Hub

    def __init__(self, how: str) -> None:
        self._how = how
        self._context: tuple[SignedMessage, Identity] | None = None
        self._is_said, self._next = trio.Event(), 0

    async def accompany(self, hub: Hub) -> None:
        """Halt again at every VIEW."""
        self.hub, receive = hub, hub.on_control[Kind.MESSAGE]

        def hear(peer: PeerId, envelope: bytes) -> None:
            stage = open_message(self.run_id, envelope).slot.stage
            receive(peer, envelope)
            if self._context and stage.phase is Phase.VIEW and stage.serial + 1 == self._next < SERIALS:
                self._halt()

        hub.on_control[Kind.MESSAGE] = hear
        await self._is_said.wait()
        await trio.sleep(0.04)  # virtual seconds
        self._halt()

    def _halt(self) -> None:
        assert self._context is not None
        message, identity = self._context
        stage, me = message.slot.stage, identity.peer_id
        slot = Stage(0, stage.attempt, Phase.HALT, self._next)
        missing, evidence = (me,), ()
        if self._how == "proofs of nothing":
            missing, evidence = (), (b"x" * MAX_SHOWN,) * MAX_EVIDENCE
        said = Halt(make_position(stage), missing, evidence)
        envelope = sign_message(identity, self.run_id, message.roster, slot, b"", said).envelope
        self._next += 1
        for peer in self.hub.connected:
            self.hub.send(peer, Kind.MESSAGE, envelope)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Begin when an AGGREGATE is said."""
        stage = message.slot.stage
        if (stage.phase, stage.round) == (Phase.AGGREGATE, ROUND) and self._context is None:
            self._context = message, identity
            self._is_said.set()
        return message.envelope


@pytest.mark.parametrize("how", ["it names itself", "proofs of nothing"])
def test_nobody_halts_the_swarm_more_often_than_it_has_partners(how: str, tmp_path: Path) -> None:
    """A HALT counts if it may mark or remove somebody."""
    cheat = HaltsForNothing(how)
    swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=ROUND + 1, genesis_size=SIZE)
    cheat.run_id = swarm.config.run_id
    outcome = play(swarm)
    assert len(find(outcome, 0, Recovered)) <= SIZE  # marks and bans are fewer, and one in an attempt is free
    require_sound(swarm, outcome)
