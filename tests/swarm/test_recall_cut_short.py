"""A recovery that goes back to the round before, as a member that was started again holds its gradient of it again."""

from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, read_said

from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import AnyPayload, Commit, Holding, Phase, SignedMessage, Stage, View
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct

CRASHES, EQUIVOCATES, DENIES = 0, 3, 4
ROUND = 3
CONFIG = {"genesis_size": 5, "rounds": ROUND + 2, "validators": 0}


class SaysNoCommit(Conduct):
    """Silent in one COMMIT, so that a recovery begins there."""

    def says(self, stage: Stage) -> bool:
        """Whether it says something."""
        return not (stage.phase is Phase.COMMIT and stage.round == ROUND)


class Gradients(InlineCompute):
    """Gradients of ``first_s`` seconds until somebody dies, and of ``later_s`` from then on."""

    takes_time = True
    first_s = later_s = 0.0
    killed: list[float]

    async def run(self, work: Any) -> Any:
        """Take the time, and work."""
        if "gradient" in work.__qualname__:
            await trio.sleep(self.later_s if self.killed else self.first_s)
        return await super().run(work)


def _deny(holding: Holding) -> Holding:
    """Hold other CONFIRMs than all others."""
    is_last = holding.position.stage.phase is Phase.CONFIRM
    return replace(holding, digests=tuple(bytes([7]) * 32 for _ in holding.digests)) if is_last else holding


@pytest.mark.parametrize(("first_s", "later_s"), [(12.0, 12.0), (0.2, 4.0)], ids=["on-disk", "slower-than-before"])
async def test_whoever_is_back_takes_part_in_the_round_before_with_its_gradient(
    first_s: float,
    later_s: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One cheat equivocates meanwhile, the other denies how that round ended: it is run again, slices and all."""
    commits = list[SignedMessage]()

    def change(who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if who != DENIES or not isinstance(payload, View):
            return payload
        stages = [holding.position.stage for holding in payload.holdings]
        is_there = any(item.round == ROUND and item.phase is Phase.COMMIT for item in stages)
        return replace(payload, holdings=tuple(map(_deny, payload.holdings))) if is_there else payload

    def deliver(sender: bytes, receiver: bytes, message: Message) -> float:
        said = read_said(hostile.swarm, message)
        is_commit = said is not None and said.slot.stage.phase is Phase.COMMIT and said.slot.stage.round == ROUND
        if said is not None and is_commit and said.sender == hostile.peers[EQUIVOCATES]:
            commits.append(said)
        return 0.1

    async def equivocate() -> None:
        while not (killed and commits):
            await trio.sleep(0.05)
        await trio.sleep(1.5)
        said = commits[0]
        assert isinstance(said.payload, Commit)
        other = replace(said.payload, overflow=True)
        message = hostile.sign(EQUIVOCATES, said.roster, said.slot.stage, other, said.previous)
        hostile.tell(EQUIVOCATES, message)

    conducts = {EQUIVOCATES: Conduct(), DENIES: SaysNoCommit()}
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts=conducts)
    alter_said(monkeypatch, hostile, change)
    hostile.swarm.network.delivery = deliver
    killed = kill_after(hostile.swarm, CRASHES, Phase.COMMIT, ROUND, back_s=0.3)
    gradients = {"first_s": first_s, "later_s": later_s, "killed": killed}
    monkeypatch.setattr("btard.sim.swarm.InlineCompute", type("Slow", (Gradients,), gradients))
    monkeypatch.setattr("btard.swarm.services.COMPUTE_FACTOR", 600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(equivocate)
        outcome = await hostile.run()
    assert killed
    assert {who for kind in DepartureKind for who in outcome.departures(kind)} == {EQUIVOCATES, DENIES}
    assert all(peer.error is None for peer in outcome.honest)
