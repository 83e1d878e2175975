"""A member held back in AGREE: the others have the last message of it, and it hears a HALT instead."""

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks.attacker import Attacker
from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.sim.swarm import SimulatedSwarm
from btard.swarm.events import Stranded
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import sign_message

UNDERWAY_S = 0.1
"""How long every message is under way: far less than Δ."""


class HoldBack(Attacker):
    """Says AGREE to all but one, and tells that one, once it has said its own, that the round is halted."""

    def __init__(self, victim: PeerId, serials: int) -> None:
        super().__init__(2)
        self._victim, self._serials = victim, serials

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message; to the victim no AGREE, but HALTs a little later."""
        stage = message.slot.stage
        if stage.phase is not Phase.AGREE or recipient != self._victim or not self.act_in(stage):
            return message.envelope
        if self.acted_in_round is None:
            self.note_act(stage.round)
            assert self.nursery is not None
            for serial in range(self._serials):
                said = Halt(make_position(stage), (identity.peer_id,), ())
                slot = Stage(0, stage.attempt, Phase.HALT, serial)
                halt = sign_message(identity, run_id, message.roster, slot, b"", said)
                self.nursery.start_soon(self._tell, halt.envelope)
        return None

    async def _tell(self, envelope: bytes) -> None:
        await trio.sleep(1.5 * UNDERWAY_S)
        assert self.hub is not None
        self.hub.send(self._victim, Kind.MESSAGE, envelope)


def take_a_while(sender: PeerId, receiver: PeerId, message: Message) -> float:
    """Let every message take the same time."""
    return UNDERWAY_S


@pytest.mark.parametrize("serials", [1, 2])
@pytest.mark.parametrize("size", [4, 5, 6])
async def test_a_member_held_back_in_agree_stays_a_member(size: int, serials: int, autojump_clock, tmp_path):
    """Nobody goes on to the next attempt before all are sure to: a HALT told to one alone divides nobody."""

    def make(swarm: SimulatedSwarm, index: int) -> HoldBack:
        return HoldBack(swarm.identities[3].peer_id, serials)

    scenario = await run_scenario(tmp_path, {1: make, 2: "false-naming"}, size=size, rounds=5, delivery=take_a_while)
    scenario.require_sound()
    assert scenario.attacker(1).acted_in_round == 2
    assert len(scenario.departures(2)) == 1
    assert not [event for peer in scenario.outcome.honest for event in peer.events if isinstance(event, Stranded)]
