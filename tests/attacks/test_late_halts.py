"""HALTs about a pair that the round itself has just marked, while some members do not know that yet."""

import pytest
from msgspec.structs import replace
from tests.attacks.scenario import run_scenario

from btard.attacks import HaltAlways
from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.messages import AnyPayload, Halt, Phase, Report, Reveal, SignedMessage, Stage
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.sim.swarm import SimulatedSwarm
from btard.swarm.events import Recovered, Stranded
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import open_message, sign_message

SLOW_S = 0.5
"""How long one member's ATTEST is under way to one other; everything else takes a tenth of a second."""


class ComplainThenHalt(HaltAlways):
    """Complains at gather about the first part, which marks it with that part's aggregator, and then halts over it.

    Its HALT says that it waits ``ahead`` rounds after the one in which it is. With ``once`` it complains once and
    halts over that part's aggregator in all that follow.
    """

    def __init__(self, me: PeerId, ahead: int, *, once: bool = False) -> None:
        super().__init__(2, 0)
        self._me, self._ahead, self._once, self._accused = me, ahead, once, tuple[PeerId, ...]()

    @property
    def victims(self) -> tuple[PeerId, ...]:
        """Whom it complained about."""
        return self._accused

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return a complaint about the first part."""
        if isinstance(payload, Reveal) and self.act_in(stage) and not (self._once and self._accused):
            return replace(payload, missing=(0,))
        return super().payload(stage, roster, payload)

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Learn whose part that was."""
        if self.is_due(round_number) and not (self._once and self._accused):
            self._accused = (parts[0].aggregator,) if parts[0].aggregator != self._me else ()
        return reports

    def _sign_halt(self, message: SignedMessage, place: Stage, identity: Identity, run_id: bytes) -> bytes:
        stage = message.slot.stage
        halt = Halt(make_position(stage._replace(round=stage.round + self._ahead)), self.victims[:1], ())
        return sign_message(identity, run_id, message.roster, place, b"", halt).envelope


@pytest.mark.parametrize("ahead", [-1, 0, 1])
async def test_a_halt_over_a_fresh_mark_divides_nobody(ahead, autojump_clock, tmp_path):
    """Whoever has settled the complaint, and whoever has not yet, enter the same recovery: nobody enters one alone."""

    def delivery(sender: PeerId, receiver: PeerId, message: Message) -> float:
        is_slow = [sender, receiver] == slow and message.kind == Kind.MESSAGE
        phase = open_message(run_id[0], message.head).slot.stage.phase if is_slow else Phase.HELLO
        return SLOW_S if phase is Phase.ATTEST else 0.1

    def make(swarm: SimulatedSwarm, index: int) -> ComplainThenHalt:
        slow.extend(swarm.identities[place].peer_id for place in (6, 4))
        run_id.append(swarm.config.run_id)
        return ComplainThenHalt(swarm.identities[index].peer_id, ahead)

    slow, run_id = list[PeerId](), list[bytes]()
    scenario = await run_scenario(tmp_path, {1: make}, rounds=8, delivery=delivery)
    scenario.require_sound()
    assert scenario.attacker(1).acted_in_round is not None
    stranded = [type(event) for peer in scenario.outcome.honest for event in peer.events if isinstance(event, Stranded)]
    assert stranded == []


async def test_a_pair_marked_by_a_gather_halts_the_swarm_once(autojump_clock, tmp_path):
    """The first recovery shows the pair to all, and no HALT over it counts any more."""

    def make(swarm: SimulatedSwarm, index: int) -> ComplainThenHalt:
        return ComplainThenHalt(swarm.identities[index].peer_id, 0, once=True)

    scenario = await run_scenario(tmp_path, {1: make}, rounds=8)
    scenario.require_sound()
    recoveries = [sum(isinstance(event, Recovered) for event in peer.events) for peer in scenario.outcome.honest]
    assert recoveries == [1] * 6
