"""The same over encrypted links on loopback: liars are named, and a forged line is refused and says why."""

from pathlib import Path

import pytest
import torch
from tests.swarm.transfer import lies
from tests.swarm.transfer.scenes import open_scene
from tests.swarm.transfer.sealed_run import SealedRun
from tests.swarm.transfer.test_lineage import STRANGERS, tell

from btard.errors import Refused


async def test_three_lying_sources_of_seven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The state is right, the liars are named, and nobody else is."""
    monkeypatch.setattr("btard.swarm.joining.transfer_frames.PIECE_BYTES", 1 << 12)
    run = SealedRun(elements=50_000)
    async with open_scene(run, tmp_path, over_tcp=True) as scene:
        for index in (1, 3, 5):
            lies.send_instead(lambda chunk: chunk)(scene, scene.members[index])
        fetched = await scene.fetch()
        assert {peer for peer, fault in fetched.faults.items() if fault.lied} == {
            scene.sources[index] for index in (1, 3, 5)
        }
    assert len(fetched.faults) == 3
    assert torch.equal(fetched.parameters, run.states[10][0])
    assert torch.equal(fetched.optimizer.buffers["speed"], run.states[10][1].buffers["speed"])


async def test_a_forged_chain_of_seals(tmp_path: Path) -> None:
    """It is refused with the seal, the signatures that it has and those that it needs."""
    run = SealedRun()
    async with open_scene(run, tmp_path, members=1, over_tcp=True) as scene:
        signers = [*run.identities[:3], *STRANGERS]
        forged = run.tuple_of(run.fork(10, signers, state=b"x" * 32), signers)
        tell(scene.members[0], [run.tuple_of(run.seals[0]), forged])
        with pytest.raises(Refused) as caught:
            await scene.ask_line()
    assert "seal 10 has valid signatures of 3 of the 7 members of seal 0, and 4 are needed" in str(caught.value)
