"""A recovery before the next COMMIT does not wait for the disk, and a crash then does not cost the peer its key."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.restarts import HaltOnce, kill_after, lag
from tests.swarm.test_updates import SlowDisk

from btard.identity import Identity, PeerId
from btard.rules.messages import Phase, SignedMessage
from btard.sim import SimulatedSwarm
from btard.sim import swarm as simulated
from btard.sim.determinism import run_deterministically
from btard.sim.tasks import StubTask
from btard.swarm.ledger_files import SMALL_BLOB
from btard.swarm.membership import Membership

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 4, "genesis_size": 5, "delay_s": 1.0, "chunk_size": 1024}
CHEAT, VICTIM = 1, 2


class HaltsBetweenRounds(HaltOnce):
    """Halts when everybody has come through a phase."""

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        if message.slot.stage.phase is Phase.CONFIRM and self.nursery is not None:
            self.nursery.start_soon(self._halt, message, recipient, identity, run_id)
        return message.envelope

    async def _halt(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> None:
        await trio.sleep(0.15)
        super().deliver(message, recipient, identity, run_id)


def test_the_round_before_is_on_disk_until_its_aggregate_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheat halts when all are past CONFIRM; the victim shows its view while it writes, and dies."""

    def make(*values: Any, **options: Any) -> Membership:
        return Membership(*values, **options, disk=SlowDisk())

    monkeypatch.setattr(simulated, "Membership", make)
    cheats = {CHEAT: HaltsBetweenRounds(2, 0, phase=Phase.CONFIRM)}
    swarm = SimulatedSwarm(SETTINGS, lambda: StubTask(SMALL_BLOB), tmp_path, conducts=cheats, delivery=lag)
    killed = kill_after(swarm, VICTIM, Phase.VIEW, 0, 2.0)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert cheats[CHEAT].acted_in_round == 2
    assert outcome.peers[VICTIM].restarts == 1
    assert outcome.peers[VICTIM].error is None
    assert len(outcome.state_roots) == 1
