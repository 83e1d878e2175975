"""Whoever computes a gradient anew after a restart is in the next attempt with all others, however long that takes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import kill_after, lag

from btard.rules.messages import Confirm, Halt, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.sim import swarm as simulated
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed
from btard.swarm.membership import Membership
from btard.swarm.recovery import Recovery
from btard.wire import encode

Z, P, W = 1, 2, 3
GRADIENT_S = 12.0


async def test_a_gradient_of_the_round_before_keeps_nobody_out_of_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It would come to that attempt's recoveries late, and take itself for one that is on time."""
    entered = dict[int, float]()
    recover = Recovery._recover

    async def run_slowly(self: InlineCompute, work: Any) -> Any:
        await trio.sleep(GRADIENT_S if "gradient" in work.__qualname__ else 0)
        return work()

    async def note_and_recover(recovery: Recovery, *, resumed: bool) -> Any:
        place = recovery._broadcast.place
        if (place.attempt, place.serial) == (1, 0):
            entered[hostile.peers.index(recovery._broadcast.me)] = trio.current_time()
        return await recover(recovery, resumed=resumed)

    def watch(index: int, event: Event) -> None:
        if isinstance(event, Resumed) and index == P:
            trio.lowlevel.spawn_system_task(show_equivocation)

    async def show_equivocation() -> None:
        await trio.sleep(0.5)
        everyone = Roster.of(hostile.peers)
        pair = [
            hostile.sign(Z, everyone.digest, Stage(2, 0, Phase.CONFIRM), Confirm(bytes([n]) * 32, ())) for n in (1, 2)
        ]
        proof = encode(hostile.prove(*pair))
        for (roster, attempt), content in {
            (everyone, 0): Halt(Position(2, 0, int(Phase.CHECK), 0), (), (proof,)),
            (everyone.without([hostile.peers[Z]]), 1): Halt(
                Position(2, 1, int(Phase.AGGREGATE), 0), (hostile.peers[0],), ()
            ),
        }.items():
            by = Z if attempt == 0 else W
            hostile.tell(by, hostile.sign(by, roster.digest, Stage(0, attempt, Phase.HALT, 0), content))
            await trio.sleep(3)

    monkeypatch.setattr(simulated, "Membership", partial(Membership, gradient_ms=10_000))
    monkeypatch.setattr(InlineCompute, "run", run_slowly)
    monkeypatch.setattr(InlineCompute, "takes_time", True)
    monkeypatch.setattr(Recovery, "_recover", note_and_recover)
    config = {"genesis_size": 5, "validators": 0, "rounds": 2}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={Z: Conduct(), W: Conduct()}, watch=watch)
    hostile.swarm.network.delivery = lag
    killed = kill_after(hostile.swarm, P, Phase.CHECK, 2, back_s=0.2)
    with trio.move_on_after(400):
        await hostile.run()
    assert killed
    assert entered.keys() >= {0, P, 4}
    assert max(entered.values()) - min(entered.values()) <= hostile.config.delay_s
    outcome = hostile.swarm.outcomes[P]
    assert outcome.error is None, "nobody is marked for slices of a gradient that it has to compute again"
    assert outcome.rounds[-1].round == 2
