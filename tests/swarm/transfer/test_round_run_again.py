"""A round may be run again until its seal is signed; what a member hands out is of the round as it was run last."""

from pathlib import Path

import pytest
import torch
import trio
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun
from torch import Tensor

from btard.net import Hub
from btard.rules.seal import Seal
from btard.swarm.frames import Kind
from btard.swarm.joining.telling_state import LOOK_S, PLACES
from btard.swarm.joining.transfer_frames import ChunksAnswer, RangeQuestion, RoundsQuestion, Status
from btard.swarm.state import as_bytes, compute_full_state_root, compute_state_root
from btard.wire import decode, encode

Clock = trio.testing.MockClock
NEWEST = 8
"""The round that is run twice: there is a snapshot of it."""


def end(scene: Scene, seal: Seal, aggregate: Tensor) -> None:
    """Let all members come to the end of the newest round."""
    for ledger in scene.ledgers:
        ledger.record_seal(seal)
        ledger.record_update(NEWEST, bytes(as_bytes(aggregate)), is_applied=True)


def sign(scene: Scene, seal: Seal) -> None:
    """Let all members see that the newest round is over for certain."""
    for ledger in scene.ledgers:
        ledger.record_signatures(NEWEST, scene.run.sign(seal))


def make_void(run: SealedRun) -> Seal:
    """The seal of the newest round as it is run first, to another state, of which there is a snapshot too."""
    parameters, optimizer = run.snapshots.held[NEWEST]
    run.snapshots.held[NEWEST] = parameters + 1.0, optimizer
    root = compute_state_root(parameters + 1.0, run.config.chunk_size)
    full_state = compute_full_state_root(root, optimizer, run.config.chunk_size)
    return run.fork(NEWEST, run.identities, transcript=b"v" * 32, state=root, full_state=full_state)


async def fetch(scene: Scene) -> None:
    """Fetch the newest state, and find no fault with anybody."""
    fetched = await scene.fetch()
    assert fetched.faults == {}
    assert torch.equal(fetched.parameters, scene.run.states[NEWEST][0])


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_aggregate_is_that_of_the_round_as_it_was_run_last(
    tmp_path: Path, autojump_clock: Clock, *, is_late: bool
) -> None:
    """Somebody asks for claims before the round is run again, or right after, while a large file is being written."""
    run = SealedRun(rounds=NEWEST)
    del run.snapshots.held[NEWEST]
    void = torch.ones(run.task.elements)
    async with open_scene(run, tmp_path, up_to=lambda _: NEWEST - 1) as scene:
        end(scene, run.fork(NEWEST, run.identities, transcript=b"v" * 32), void)
        if is_late:
            for ledger in scene.ledgers:
                ledger.record_seal(run.seals[NEWEST])
        for source in scene.sources:
            await scene.hub.request(source, Kind.CLAIMS, encode(RoundsQuestion(NEWEST, NEWEST)), timeout_s=5.0)
        end(scene, run.seals[NEWEST], run.aggregates[NEWEST])
        sign(scene, run.seals[NEWEST])
        await fetch(scene)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_snapshot_is_that_of_the_round_as_it_was_run_last(
    tmp_path: Path, autojump_clock: Clock, *, is_late: bool
) -> None:
    """Members look at a new snapshot by themselves; the one that replaces it may be on the disk long after its seal."""
    run = SealedRun(rounds=NEWEST)
    true = run.snapshots.held[NEWEST]
    void = make_void(run)
    async with open_scene(run, tmp_path, up_to=lambda _: NEWEST - 1) as scene:
        end(scene, void, run.aggregates[NEWEST])
        await trio.sleep(2.5 * LOOK_S)
        end(scene, run.seals[NEWEST], run.aggregates[NEWEST])
        await trio.sleep(2 * LOOK_S if is_late else 0.0)
        run.snapshots.held[NEWEST] = true
        sign(scene, run.seals[NEWEST])
        await trio.sleep(2 * LOOK_S if is_late else 0.0)
        del run.snapshots.held[NEWEST - 4]
        await fetch(scene)


async def test_no_chunk_of_another_version_goes_out_after_a_wait_for_a_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """What was asked for is gone by then: bytes of what replaced it would be a lie."""
    run, sent = SealedRun(rounds=NEWEST), list[bytes]()
    void = torch.ones(run.task.elements)
    question = encode(RangeQuestion(NEWEST, compute_state_root(void, run.config.chunk_size), 0, 1))
    statuses: list[Status] = []

    async def send(hub: Hub, peer: object, kind: int, head: bytes, payload: memoryview) -> None:
        sent.append(bytes(payload))
        await trio.sleep(0.5)

    async def ask(scene: Scene, number: int) -> None:
        peer = run.identities[number].peer_id
        answer, _ = await scene.members[0].serve[Kind.CHUNKS](peer, question)
        statuses.append(decode(answer, ChunksAnswer).status)

    monkeypatch.setattr(Hub, "send_bulk", send)
    monkeypatch.setattr(Hub, "is_stranger", lambda *_: False)
    async with open_scene(run, tmp_path, members=1, up_to=lambda _: NEWEST - 1) as scene:
        end(scene, run.fork(NEWEST, run.identities, transcript=b"v" * 32), void)
        async with trio.open_nursery() as nursery:
            for number in range(PLACES + 1):
                nursery.start_soon(ask, scene, number // 2)
            await trio.testing.wait_all_tasks_blocked()
            assert len(sent) == PLACES
            end(scene, run.seals[NEWEST], run.aggregates[NEWEST])
        assert statuses == [Status.SENT] * PLACES + [Status.GONE]
        assert set(sent) == {bytes(as_bytes(void[: run.config.chunk_size]))}
