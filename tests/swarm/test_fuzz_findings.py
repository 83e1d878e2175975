"""What the fuzzer found, each as the shortest scenario that shows it."""

from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Check, Halt, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Halted, RoundDone

Clock = trio.testing.MockClock
Z, VICTIM = 1, 0


async def test_an_empty_halt_beside_an_equivocation_parts_nobody_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """One member alone holds a proof and a HALT without a reason: its recovery must be everybody's, not its own.

    It began one by itself, one serial after another, halted by the proof in every second phase, and gave up in the end.
    """
    halted = []

    def watch(index: int, event: Event) -> None:
        halted.extend([event] if isinstance(event, Halted) else [])
        if index == Z and isinstance(event, RoundDone) and event.round == 1:
            roster = Roster(event.roster).digest
            odd = Halt(Position(2, 0, int(Phase.COMMIT), 0), (), ())
            hostile.tell(Z, hostile.sign(Z, roster, Stage(0, 0, Phase.HALT, 0), odd), [VICTIM])
            for nonce in (b"a" * 32, b"b" * 32):
                hostile.tell(Z, hostile.sign(Z, roster, Stage(2, 0, Phase.CHECK), Check((), nonce)), [VICTIM])

    config = {"genesis_size": 4, "rounds": 6}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={Z: Conduct()}, watch=watch)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert {i: event.cause for i, event in outcome.departures(DepartureKind.BAN).items()} == {Z: Cause.EQUIVOCATION}
    assert len(halted) <= len(hostile.peers)
    assert len(outcome.state_roots) == 1
