"""A departure that takes effect a round later: whoever is still in the one before is called to no recovery there."""

from pathlib import Path

import pytest
import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.attacks.equivocation import alter
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Stranded
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import encode, prove_equivocation, sign_message

ROUND = 2
CHEAT, VICTIM = 1, 3


class Strands(Conduct):
    """One cheat: keeps its CONFIRM from one member, halts twice, the second time with a proof against itself."""

    victim = named = PeerId(bytes(32))

    def __init__(self, *, last: bool) -> None:
        self._last = last
        self._context: tuple[SignedMessage, Identity, bytes] | None = None
        self._is_said = trio.Event()

    async def accompany(self, hub: Hub) -> None:
        """Halt the victim, then all with a proof against ourselves, then the victim once more."""
        await self._is_said.wait()
        assert self._context is not None
        message, identity, run_id = self._context
        stage, roster = message.slot.stage, message.roster

        def halt(serial: int, proofs: tuple[bytes, ...]) -> bytes:
            said = Halt(make_position(stage), (self.named,), proofs)
            return sign_message(
                identity, run_id, roster, Stage(0, stage.attempt, Phase.HALT, serial), b"", said
            ).envelope

        other = sign_message(identity, run_id, roster, stage, message.previous, alter(message.payload))
        proof = encode(prove_equivocation(message, other))
        await trio.sleep(0.1)  # virtual seconds
        hub.send(self.victim, Kind.MESSAGE, halt(0, ()))
        await trio.sleep(0.5)
        for peer in hub.connected:
            hub.send(peer, Kind.MESSAGE, halt(1, (proof,)))
        await trio.sleep(2.5)
        if self._last:
            hub.send(self.victim, Kind.MESSAGE, halt(2, ()))

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Keep one CONFIRM from the victim."""
        stage = message.slot.stage
        if (stage.phase, stage.round, recipient) != (Phase.CONFIRM, ROUND, self.victim):
            return message.envelope
        self._context = message, identity, run_id
        self._is_said.set()
        return None


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("last", [False, True])
def test_the_member_that_is_a_round_behind_stays(size: int, tmp_path: Path, *, last: bool) -> None:
    """It finishes that round and comes after the others, whatever it is told of the attempt that they have left."""
    cheat = Strands(last=last)
    swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=4, genesis_size=size)
    cheat.victim, cheat.named = (swarm.identities[index].peer_id for index in (VICTIM, 0))
    waits = list[Stranded]()

    def watch(index: int, event: object) -> None:
        if index == VICTIM and isinstance(event, Stranded):
            waits.append(event)
            if len(waits) == 3:  # it would wait for a day
                swarm.stop()

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.REMOVAL).keys() <= {CHEAT}
    assert [peer.error for peer in outcome.honest] == [None] * (size - 1)
    require_sound(swarm, outcome)
