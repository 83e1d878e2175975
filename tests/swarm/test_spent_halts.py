"""A proof that no HALT has room for spends nobody's HALT: what comes after it can be called for still."""

from pathlib import Path

import pytest
import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.messages import Halt, Phase, SignedMessage, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Halted
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import sign_message

ROUND, SIZE, CHEAT = 2, 4, 1


class SpendsHalts(Conduct):
    """One cheat: says two bulky HALTs that give no reason, then nothing more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._context: tuple[SignedMessage, Identity, bytes] | None = None
        self._is_said = trio.Event()

    async def accompany(self, hub: Hub) -> None:
        """Two HALTs to everyone."""
        await self._is_said.wait()
        assert self._context is not None
        message, identity, run_id = self._context
        stage = message.slot.stage
        slot = Stage(0, stage.attempt, Phase.HALT, 0)
        for item in (b"x", b"y"):
            said = Halt(make_position(stage), (), (item * self._size,))
            envelope = sign_message(identity, run_id, message.roster, slot, b"", said).envelope
            for peer in hub.connected:
                hub.send(peer, Kind.MESSAGE, envelope)

    def says(self, stage: Stage) -> bool:
        """Nothing from that REVEAL on, and no word in a recovery."""
        return stage.round != 0 and (stage.round, stage.phase) < (ROUND, Phase.REVEAL)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Begin when an AGGREGATE is said."""
        stage = message.slot.stage
        if (stage.phase, stage.round) == (Phase.AGGREGATE, ROUND) and self._context is None:
            self._context = message, identity, run_id
            self._is_said.set()
        return message.envelope


@pytest.mark.parametrize("size", [600, 160_000])
def test_silence_removes_also_whoever_said_two_bulky_halts(size: int, tmp_path: Path) -> None:
    """The others go on without it."""
    cheat = SpendsHalts(size)
    swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=ROUND + 1, genesis_size=SIZE)
    halts = list[object]()

    def watch(index: int, event: object) -> None:
        if index == 0 and isinstance(event, Halted):
            halts.append(event)
            if len(halts) == 20:  # the same HALT again and again, which counts with nobody
                swarm.stop()

    swarm._watch = watch
    outcome = play(swarm)
    assert all(peer.state is not None for peer in outcome.honest)
    require_sound(swarm, outcome)
