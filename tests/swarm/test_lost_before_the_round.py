"""Whoever was away as a round began is waited for also by those who were still in the round before."""

from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import kill_after, read_said, slow_down_gradients

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, SliceHead
from btard.wire import decode

Clock = trio.testing.MockClock
CRASHES, CHEAT = 0, 3
GRADIENT_S = 8.0
CONFIG = {"genesis_size": 4, "rounds": 4, "validators": 0}


@pytest.mark.parametrize("keeps", [True, False], ids=["others-kept-in-confirm", "no-cheat"])
async def test_whoever_was_started_again_is_waited_for_by_those_who_were_behind(
    keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It crashes in COMMIT, with its slices under way, while a cheat keeps the others in CONFIRM."""
    slow_down_gradients(monkeypatch, GRADIENT_S, 80.0)

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        if message.kind == Kind.SLICE and message.payload is not None:
            is_cut_off = sender == hostile.peers[CRASHES] and decode(message.head, SliceHead).round == 3 and not killed
            return None if is_cut_off else 0.5  # a transfer takes longer than the life of its sender
        said = read_said(hostile.swarm, message)
        is_kept = said is not None and (said.slot.stage.phase, said.slot.stage.round) == (Phase.CONFIRM, 2)
        is_kept = is_kept and sender == hostile.peers[CHEAT] and receiver != hostile.peers[CRASHES]
        return GRADIENT_S + 2.0 if keeps and is_kept else 0.1

    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={CHEAT: Conduct()})
    hostile.swarm.network.delivery = deliver
    killed = kill_after(hostile.swarm, CRASHES, Phase.COMMIT, 3, back_s=0.3)
    outcome = await hostile.run()
    assert killed
    assert not set(outcome.departures(DepartureKind.REMOVAL)) - outcome.byzantine
