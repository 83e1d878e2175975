"""A member held back in AGREE: the others have the last message of it, and it hears a HALT instead."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks.accusing import FalseNaming
from btard.attacks.attacker import Attacker
from btard.errors import NetworkError
from btard.identity import Identity, PeerId
from btard.net import Hub, Message
from btard.rules.evidence import Cause
from btard.rules.messages import AnyPayload, Ballot, Halt, Holding, Phase, SignedMessage, Stage, View
from btard.rules.recovery import compute_views_digest
from btard.sim.swarm import SimulatedSwarm
from btard.swarm.events import Stranded
from btard.swarm.frames import Kind
from btard.swarm.services import Deadlines
from btard.swarm.viewing import make_position
from btard.wire import open_message, sign_message

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


async def test_whoever_lacks_the_last_agree_is_told_it_with_the_call_to_settle(autojump_clock, tmp_path):
    """Where it hears no HALT it takes part as well: every member votes, and nobody counts as silent."""

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float:
        said = open_message(run_id[0], message.head) if message.kind == Kind.MESSAGE else None
        if said and isinstance(said.payload, Ballot) and said.slot.stage.attempt == 0:
            ballots.append(said.payload)
        return UNDERWAY_S

    def make(swarm: SimulatedSwarm, index: int) -> HoldBack:
        run_id.append(swarm.config.run_id)
        return HoldBack(swarm.identities[3].peer_id, 0)

    ballots, run_id = list[Ballot](), list[bytes]()
    scenario = await run_scenario(
        tmp_path, {1: make, 2: "false-naming"}, size=5, rounds=3, options={"validators": 0}, delivery=deliver
    )
    scenario.require_sound()
    assert len(ballots) == 5 * 4
    assert {ballot.silent for ballot in ballots} == {()}


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


class SettleAlone(FalseNaming):
    """Names falsely, keeps its AGREE from both others until their deadlines, tells one, and recovers with the other.

    In that recovery it shows a view in which the first one's AGREE is missing, and votes as the second must.
    """

    def __init__(self, swarm: SimulatedSwarm, me: int, first: int, second: int) -> None:
        self._me, self._first, self._second = (swarm.identities[index].peer_id for index in (me, first, second))
        super().__init__(2, 0, self._me)
        self._config = swarm.config
        self._heard: dict[tuple[PeerId, Phase], SignedMessage] = {}

    async def accompany(self, hub: Hub) -> None:
        """Neither serve nor ask for messages; take note of what is said in AGREE and after, and do not go on by it."""
        receive, request = hub.on_control[Kind.MESSAGE], hub.request

        def hear(peer: PeerId, envelope: bytes) -> None:
            said = open_message(self._config.run_id, envelope)
            self._heard[said.slot.sender, said.slot.stage.phase] = said
            if said.slot.stage.phase is not Phase.AGREE:
                receive(peer, envelope)

        async def ask(peer: PeerId, kind: int, body: bytes, **options: Any) -> Message:
            if kind == Kind.PULL_STAGE:
                raise NetworkError("not now")
            return await request(peer, kind, body, **options)

        hub.on_control[Kind.MESSAGE], hub.request = hear, ask
        del hub.serve[Kind.PULL_STAGE]
        await super().accompany(hub)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return nothing of our AGREE, and nothing of what we say in recoveries."""
        stage = message.slot.stage
        if stage.phase is Phase.AGREE and recipient == self._first and self.acted_in_round and self.nursery:
            self.nursery.start_soon(self._act_later, message, partial(self._sign, message, identity, run_id))
        return None if stage.phase is Phase.AGREE or stage.round == 0 else message.envelope

    def _sign(
        self, agree: SignedMessage, identity: Identity, run_id: bytes, phase: Phase, payload: AnyPayload
    ) -> SignedMessage:
        stage = Stage(0, agree.slot.stage.attempt, phase, 0)
        return sign_message(identity, run_id, agree.roster, stage, b"", payload)

    async def _act_later(self, agree: SignedMessage, sign: Callable[[Phase, AnyPayload], SignedMessage]) -> None:
        at, delay_s = make_position(agree.slot.stage), self._config.delay_s
        await trio.sleep(Deadlines.of(self._config, 100).check + delay_s / 2)
        assert self.hub is not None
        self.hub.send(self._first, Kind.MESSAGE, agree.envelope)
        known = {self._me: agree.digest, self._second: self._heard[self._second, Phase.AGREE].digest}
        members = sorted((self._me, self._first, self._second))
        holding = Holding(at, tuple(known.get(peer, b"") for peer in members))
        halt = sign(Phase.HALT, Halt(at, (self._me,), ()))
        content = View(at, True, (holding,), (agree.envelope,), (), halt.envelope, (), resumed=False)
        view = sign(Phase.VIEW, content)
        for message in (halt, view):
            self.hub.send(self._second, Kind.MESSAGE, message.envelope)
        await trio.sleep(delay_s)
        views = {self._me: view, self._second: self._heard[self._second, Phase.VIEW]}
        ballot = sign(Phase.BALLOT, Ballot((self._first,), compute_views_digest(views)))
        self.hub.send(self._second, Kind.MESSAGE, ballot.envelope)


async def test_one_held_back_and_f_liars_settle_nothing_of_their_own(autojump_clock, tmp_path):
    """They are more than half of three; without the third, which holds the whole AGREE, nothing is settled."""

    def make(swarm: SimulatedSwarm, index: int) -> SettleAlone:
        return SettleAlone(swarm, index, 0, 2)

    scenario = await run_scenario(
        tmp_path, {1: make}, size=3, rounds=4, options={"validators": 0}, delivery=take_a_while
    )
    scenario.require_sound()
    assert scenario.departure(1).cause is Cause.FALSE_NAMING
