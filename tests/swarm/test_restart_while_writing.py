"""Nobody says that it has every aggregate before what they make up is on disk, however slow that is."""

from pathlib import Path
from typing import Any

import pytest
from tests.swarm.test_updates import SlowDisk

from btard.rules.messages import Check, Phase, SignedMessage, Stage
from btard.sim import SimulatedSwarm
from btard.sim import swarm as simulated
from btard.sim.determinism import run_deterministically
from btard.sim.tasks import StubTask
from btard.swarm.broadcast import Broadcast
from btard.swarm.ledger_files import SMALL_BLOB
from btard.swarm.membership import Membership

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 2, "genesis_size": 4, "delay_s": 1.0, "chunk_size": 1024}


@pytest.mark.parametrize("elements", [8, SMALL_BLOB])
def test_check_waits_for_the_disk(elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one lies in the ledger, a large one in a file that takes its time."""
    say, found = Broadcast.say, list[bool]()

    def make(*values: Any, **options: Any) -> Membership:
        return Membership(*values, **{**options, "disk": SlowDisk()})

    def look_and_say(self: Broadcast, stage: Stage, roster: bytes, previous: bytes, payload: Any) -> SignedMessage:
        if stage.phase is Phase.CHECK:
            assert isinstance(payload, Check)
            found.append(self._ledger.find_update(stage.round) is not None)
        return say(self, stage, roster, previous, payload)

    monkeypatch.setattr(simulated, "Membership", make)
    monkeypatch.setattr(Broadcast, "say", look_and_say)
    outcome = run_deterministically(SimulatedSwarm(SETTINGS, lambda: StubTask(elements), tmp_path).run, 1)
    assert [peer.error for peer in outcome.peers] == [None] * 4
    assert found == [True] * 8
