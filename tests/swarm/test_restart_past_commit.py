"""All honest members are started again past AGGREGATE, and one cheat halts them before they are through COMMIT."""

from pathlib import Path

import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.attacks.equivocation import alter
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import encode, prove_equivocation, sign_message

ROUND, SIZE, CHEAT = 3, 5, 1


class HaltsThoseWhoComeBack(Conduct):
    """One cheat: has all others crash in CHECK, and halts each as it comes back, with a proof against itself."""

    swarm: SimulatedSwarm

    def __init__(self) -> None:
        self._context: tuple[SignedMessage, Identity, bytes] | None = None
        self._is_said = trio.Event()

    async def accompany(self, hub: Hub) -> None:
        """Halt everybody once, as soon as there is a link."""
        await self._is_said.wait()
        assert self._context is not None
        check, identity, run_id = self._context
        stage = check.slot.stage
        other = sign_message(identity, run_id, check.roster, stage, check.previous, alter(check.payload))
        proof = encode(prove_equivocation(check, other))
        said = Halt(make_position(stage), (identity.peer_id,), (proof,))
        halt = sign_message(identity, run_id, check.roster, Stage(0, stage.attempt, Phase.HALT, 0), b"", said).envelope
        told = set[PeerId]()
        await trio.sleep(0.2)  # virtual seconds
        while len(told) < SIZE - 1:
            for peer in hub.connected - told:
                told.add(peer)
                hub.send(peer, Kind.MESSAGE, halt)
            await trio.sleep(0.01)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Crash the others when our CHECK is due, and keep that."""
        stage = message.slot.stage
        if (stage.phase, stage.round) == (Phase.CHECK, ROUND):
            if self._context is None:
                self._context = message, identity, run_id
                self._is_said.set()
                for index in range(SIZE):
                    if index != CHEAT:
                        self.swarm.crash(index, 0.5)
            return None
        return message.envelope


def test_nobody_goes_back_behind_a_seal_that_is_signed(tmp_path: Path) -> None:
    """Whoever has been past a COMMIT says so when it is there again: the seal of the round before is signed."""
    cheat = HaltsThoseWhoComeBack()
    swarm = cheat.swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=ROUND + 1, genesis_size=SIZE)
    outcome = play(swarm)
    assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 1)
    require_sound(swarm, outcome)
