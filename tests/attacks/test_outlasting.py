"""A recovery in which one member waits for private data that the others cannot send before it ends."""

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks.attacker import Attacker
from btard.identity import Identity, PeerId
from btard.net import Hub, Message
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.sim.swarm import SimulatedSwarm
from btard.swarm.events import Recovered
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import sign_message

UNDERWAY_S = 0.1
"""How long every message is under way: far less than Δ."""
SLOW = 40
"""Bytes a second: a vector may take 20 Δ."""


class HaltsBetween(Attacker):
    """Says AGGREGATE to some only, halts the swarm over one who is there, and casts no ballot."""

    def __init__(self, first: frozenset[PeerId], named: PeerId) -> None:
        super().__init__(2)
        self._first, self._named = first, named

    async def accompany(self, hub: Hub) -> None:
        """Serve no messages."""
        del hub.serve[Kind.PULL_STAGE]
        await super().accompany(hub)

    def says(self, stage: Stage) -> bool:
        """No ballot: a certificate needs ours, and nobody pays for a vote that the fallback can do without."""
        return stage.phase is not Phase.BALLOT or self.acted_in_round is None

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message; no AGGREGATE to most, but a HALT to all a little later."""
        stage = message.slot.stage
        if (
            stage.phase is not Phase.AGGREGATE
            or not self.act_in(stage)
            or self.acted_in_round not in {None, stage.round}
        ):
            return message.envelope
        if self.acted_in_round is None:
            self.note_act(stage.round)
            said = Halt(make_position(stage), (self._named,), ())
            slot = Stage(0, stage.attempt, Phase.HALT, 0)
            assert self.nursery is not None
            halt = sign_message(identity, run_id, message.roster, slot, b"", said)
            self.nursery.start_soon(self._tell, halt.envelope)
        return message.envelope if recipient in self._first else None

    async def _tell(self, envelope: bytes) -> None:
        await trio.sleep(3 * UNDERWAY_S)
        assert self.hub is not None
        self.hub.on_control[Kind.MESSAGE](self.hub.me, envelope)  # it recovers like the others
        for peer in self.victims:
            self.hub.send(peer, Kind.MESSAGE, envelope)


class StarvesOne(HaltsBetween):
    """Keeps its slice from one member, halts the swarm as that is waited for, and votes: which costs it nothing."""

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Nothing for that member, once."""
        return round_number != self.first_round or recipient != self._named

    def says(self, stage: Stage) -> bool:
        """Everything."""
        return True

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, whatever else it does beside."""
        super().deliver(message, recipient, identity, run_id)
        return message.envelope


def take_a_while(sender: PeerId, receiver: PeerId, message: Message) -> float:
    """Let every message take the same time."""
    return UNDERWAY_S


@pytest.mark.parametrize("first", [(3,), (0, 2, 3, 4, 5, 6)], ids=["to one only", "to all but one"])
async def test_the_time_of_a_recovery_is_not_waited_for_private_data(first: tuple[int, ...], autojump_clock, tmp_path):
    """Whoever was past AGGREGATE, or was not yet, when the swarm halted is no partner in a mark."""

    def make(swarm: SimulatedSwarm, index: int) -> HaltsBetween:
        ids = [identity.peer_id for identity in swarm.identities]
        return HaltsBetween(frozenset(ids[item] for item in first), ids[5])

    scenario = await run_scenario(tmp_path, {1: make}, size=8, rounds=4, delivery=take_a_while)
    scenario.require_sound()
    recoveries = [
        [event.is_fallback for event in peer.events if isinstance(event, Recovered)] for peer in scenario.outcome.honest
    ]
    assert recoveries == [[True]] * 7
    for peer in scenario.outcome.honest:
        assert peer.state is not None
        assert peer.state.marks.pairs == frozenset()


async def test_a_wait_that_a_recovery_breaks_off_begins_anew_with_those_of_the_others(autojump_clock, tmp_path):
    """Whoever waits for private data is not a wait behind the others when all have begun theirs again."""

    def make(swarm: SimulatedSwarm, index: int) -> StarvesOne:
        ids = [identity.peer_id for identity in swarm.identities]
        return StarvesOne(frozenset(ids), ids[5])

    options = {"min_bandwidth": SLOW}
    scenario = await run_scenario(tmp_path, {1: make}, size=8, rounds=4, delivery=take_a_while, options=options)
    scenario.require_sound()
    assert scenario.attacker(1).acted_in_round == 2
