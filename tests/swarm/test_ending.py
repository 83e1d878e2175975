"""Who has ended answers nobody any more: its ledger is closed."""

from pathlib import Path

import pytest
import trio.testing

from btard.net import Hub
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim import swarm as simulated
from btard.sim.swarm import StaticDirectory
from btard.swarm.events import Event
from btard.swarm.frames import Kind
from btard.swarm.peer import Membership, run_peer
from btard.swarm.state import State

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 2, "genesis_size": 4, "delay_s": 1.0}


async def test_a_peer_that_ended_leaves_no_handler(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members answer while they take part, about seals for example; afterwards the hub is as it was before."""
    hubs, during, after = dict[int, Hub](), list[bool](), []

    async def run_and_look(member: Membership, hub: Hub, directory: StaticDirectory) -> State:
        state = await run_peer(member, hub, directory)
        after.append((dict(hub.serve), dict(hub.on_control), dict(hub.bulk)))
        return state

    def watch(index: int, _event: Event) -> None:
        during.append(Kind.LINEAGE in hubs[index].serve)

    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path, watch=watch)

    def make_hub(transport: object, me: bytes) -> Hub:
        index = next(number for number, identity in enumerate(swarm.identities) if identity.peer_id == me)
        return hubs.setdefault(index, Hub(transport, me))

    monkeypatch.setattr(simulated, "run_peer", run_and_look)
    monkeypatch.setattr(simulated, "Hub", make_hub)
    await swarm.run()
    assert any(during)
    assert after == 4 * [({}, {}, {})]
