"""A peer killed at any instant comes back to its place: one state, nobody gone, never a second message for a slot."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType

import pytest
import trio

from btard.errors import RemoteProtocolError
from btard.net import Message
from btard.rules.messages import Phase, Slot
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.sim.power import RUNNING, PowerLoss
from btard.swarm.audit import audit_ledger
from btard.swarm.events import Resumed
from btard.swarm.frames import Kind
from btard.swarm.ledger_files import Step
from btard.wire import open_message

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 4, "genesis_size": 4, "delay_s": 1.0}
BACK_S = 1.5
"""Seconds of virtual time until a killed peer is back: less than any deadline."""


class Witness:
    """Holds every version of every message that anybody ever sent."""

    def __init__(self, swarm: SimulatedSwarm) -> None:
        self._run_id, self.versions = swarm.config.run_id, defaultdict[Slot, set[bytes]](set)
        swarm.network.on_arrival = self._note

    def _note(self, _sender: bytes, _receiver: bytes, message: Message, _now: float) -> None:
        if message.kind != Kind.MESSAGE or message.payload is not None:
            return
        try:
            opened = open_message(self._run_id, message.head)
        except RemoteProtocolError:
            return
        if opened.slot.stage.phase is not Phase.HELLO:
            self.versions[opened.slot].add(opened.digest)

    @property
    def doubles(self) -> list[Slot]:
        """The slots for which two different messages were signed."""
        return [slot for slot, versions in self.versions.items() if len(versions) > 1]


@contextmanager
def killing(count: int, kill: Callable[[int], None], *, before: bool) -> Iterator[None]:
    """Call ``kill`` with the peer whose write to its ledger is the ``count``-th of all, before or after it."""
    original, left = Step.__exit__, [count]

    def watched(
        step: Step, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left[0] -= 1
        if left[0] == 0 and before and error is None:
            kill(RUNNING.get())
            raise PowerLoss
        original(step, kind, error, trace)
        if left[0] == 0 and not before:
            kill(RUNNING.get())

    Step.__exit__ = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        Step.__exit__ = original  # type: ignore[method-assign]


def require_unharmed(swarm: SimulatedSwarm, outcome: Outcome, witness: Witness) -> None:
    """Everybody finished with one state, nobody left, nobody signed twice, every ledger audits clean."""
    assert [peer.error for peer in outcome.peers] == [None] * len(outcome.peers)
    assert all(peer.state is not None for peer in outcome.peers)
    assert len(outcome.state_roots) == 1
    assert [peer.departures for peer in outcome.peers] == [[]] * len(outcome.peers)
    assert witness.doubles == []
    for peer in outcome.peers:
        assert audit_ledger(swarm.data_dir(peer.index)).problems == ()


@pytest.mark.parametrize("seed", range(12))
async def test_a_peer_killed_at_any_write_comes_back(
    seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whichever write to a ledger is the last one before the power fails, the run ends as if nothing had happened."""
    dice = Random(seed)
    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path, seed=seed)
    witness = Witness(swarm)
    with killing(dice.randint(1, 140), lambda index: swarm.crash(index, BACK_S), before=dice.random() < 0.5):
        outcome = await swarm.run()
    require_unharmed(swarm, outcome, witness)


@pytest.mark.parametrize("seed", range(6))
async def test_all_peers_killed_at_once_go_on(
    seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """After a power cut for everybody the run goes on, though nobody has anything in memory."""
    dice = Random(seed)
    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path, seed=seed)
    witness = Witness(swarm)

    def kill_all(_index: int) -> None:
        for index in range(4):
            swarm.crash(index, 1.0 + dice.random() * 10)

    with killing(dice.randint(20, 130), kill_all, before=dice.random() < 0.5):
        outcome = await swarm.run()
    require_unharmed(swarm, outcome, witness)
    assert all(any(isinstance(event, Resumed) for event in peer.events) for peer in outcome.peers)
