"""A member hands out what its seals name, to a bounded number at a time, and nothing else."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
import trio
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import CHUNK, SealedRun

from btard.errors import ConnectionLost
from btard.identity import PeerId
from btard.net import Hub
from btard.swarm.frames import Kind
from btard.swarm.joining.telling_state import LOOK_S, PLACES, PLACES_PER_PEER, StateTeller
from btard.swarm.joining.transfer_frames import (
    ChunksAnswer,
    Claims,
    Offer,
    Outline,
    OutlineQuestion,
    RangeQuestion,
    RoundsQuestion,
    Segment,
    Status,
)
from btard.swarm.restoring import StoredState
from btard.swarm.state import compute_state_root
from btard.wire import decode, encode

Clock = trio.testing.MockClock
STRANGERS = [PeerId(bytes([255, number] * 16)) for number in range(PLACES)]


class Box:
    """Takes every chunk that is sent, when it may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def sink(self, peer, head, size):
        return memoryview(bytearray(size))

    def done(self, peer, head, payload) -> None:
        self.sizes.append(len(payload))


async def ask(scene: Scene, kind: Kind, body: bytes) -> bytes:
    """The first member's answer."""
    return (await scene.hub.request(scene.sources[0], kind, body, timeout_s=30.0)).head


async def ask_offer(scene: Scene) -> tuple[int, ...]:
    """What the first member offers."""
    return decode(await ask(scene, Kind.OFFER, b""), Offer).snapshots


async def test_nothing_is_claimed_of_an_aggregate_that_was_forgotten(tmp_path: Path, autojump_clock: Clock) -> None:
    """Its digest is known still, but no longer whether x moved by it: a wrong word on that would look like a lie."""
    run = SealedRun(rounds=14)
    async with open_scene(run, tmp_path, members=1) as scene:
        question = encode(RoundsQuestion(9, 10))
        before = decode(await ask(scene, Kind.CLAIMS, question), Claims).claims
        assert all(claim.root for claim in before)
        scene.ledgers[0].forget_updates(9)
        after = decode(await ask(scene, Kind.CLAIMS, question), Claims).claims
        assert [bool(claim.root) for claim in after] == [False, True]


async def test_offered_are_snapshots_with_everything_since(tmp_path: Path, autojump_clock: Clock) -> None:
    """A snapshot before a missing aggregate leads nowhere."""
    run = SealedRun(rounds=14)
    async with open_scene(run, tmp_path, members=1) as scene:
        assert await ask_offer(scene) == (0, 4, 8, 12)
        scene.ledgers[0].forget_updates(6)
        assert await ask_offer(scene) == (8, 12)
        scene.ledgers[0].forget_updates(8)
        assert await ask_offer(scene) == (8, 12)
        scene.ledgers[0].forget_updates(13)
        assert await ask_offer(scene) == ()


async def test_the_newest_aggregate_may_be_on_its_way_to_the_disk(tmp_path: Path, autojump_clock: Clock) -> None:
    """It will be there before its seal is signed, so the snapshots before it lead on."""
    async with open_scene(SealedRun(rounds=6), tmp_path, members=1) as scene:
        scene.ledgers[0]._database.execute("DELETE FROM updates WHERE round = 6")
        assert await ask_offer(scene) == (0, 4)


async def test_a_spoiled_snapshot_is_not_handed_out(tmp_path: Path, autojump_clock: Clock) -> None:
    """An honest member with a bad disk does not become a liar."""
    run = SealedRun()
    parameters, optimizer = run.snapshots.held[8]
    run.snapshots.held[8] = parameters + 1, optimizer
    async with open_scene(run, tmp_path, members=2) as scene:
        answer = decode(await ask(scene, Kind.OUTLINE, encode(OutlineQuestion(8))), Outline)
        assert answer.parameters is None
        fetched = await scene.fetch()
    assert fetched.base == 4
    assert not any(fault.lied for fault in fetched.faults.values())
    assert torch.equal(fetched.parameters, run.states[10][0])


async def test_questions_beyond_what_there_is(tmp_path: Path, autojump_clock: Clock) -> None:
    """They get empty answers: other rounds, other roots, ranges upside down or too long."""
    run = SealedRun()
    root = compute_state_root(run.states[8][0], CHUNK)
    async with open_scene(run, tmp_path, members=1) as scene:
        box = scene.hub.bulk[Kind.CHUNKS] = Box()
        for question in (
            RangeQuestion(8, b"x" * 32, 0, 1),
            RangeQuestion(9, root, 0, 1),
            RangeQuestion(8, root, 5, 5),
            RangeQuestion(8, root, 6, 5),
            RangeQuestion(8, root, 0, 2**40),
            RangeQuestion(8, root, 1000, 1001),
        ):
            answer = decode(await ask(scene, Kind.CHUNKS, encode(question)), ChunksAnswer)
            assert answer.status is Status.GONE
        assert box.sizes == []
        for rounds, count in ((RoundsQuestion(9, 2), 0), (RoundsQuestion(3, 2**50), 8), (RoundsQuestion(2**50, 0), 0)):
            assert len(decode(await ask(scene, Kind.SEGMENT, encode(rounds)), Segment).seals) == count
        claims = decode(await ask(scene, Kind.CLAIMS, encode(RoundsQuestion(9, 2**50))), Claims).claims
        assert [bool(claim.root) for claim in claims[:3]] == [True, True, False]
        assert len(claims) == 256


@pytest.mark.parametrize("kind", [Kind.SEGMENT, Kind.OUTLINE, Kind.CLAIMS, Kind.LEAVES, Kind.CHUNKS, Kind.LINEAGE])
async def test_nonsense_ends_the_link(kind: Kind, tmp_path: Path, autojump_clock: Clock) -> None:
    """And nothing else."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        with pytest.raises(ConnectionLost):
            await ask(scene, kind, b"\xc1nonsense")


async def test_one_peer_has_few_places(tmp_path: Path, autojump_clock: Clock) -> None:
    """Of more questions at once than a peer has places the rest is told that we are busy."""
    run = SealedRun()
    root = compute_state_root(run.states[8][0], CHUNK)
    teller_wait = trio.Event()
    async with open_scene(run, tmp_path, members=1) as scene:
        scene.hub.bulk[Kind.CHUNKS] = box = Box()
        hub, statuses = scene.members[0], []
        send = hub.send_bulk

        async def wait_and_send(*arguments) -> None:
            await teller_wait.wait()
            await send(*arguments)

        hub.send_bulk = wait_and_send  # type: ignore[method-assign]

        async def ask_chunk(number: int) -> None:
            body = encode(RangeQuestion(8, root, number, number + 1))
            statuses.append(decode(await ask(scene, Kind.CHUNKS, body), ChunksAnswer).status)

        async with trio.open_nursery() as nursery:
            for number in range(PLACES_PER_PEER + 1):
                nursery.start_soon(ask_chunk, number)
            await trio.testing.wait_all_tasks_blocked()
            assert statuses == [Status.BUSY]
            teller_wait.set()
        assert statuses[1:] == [Status.SENT] * PLACES_PER_PEER
        assert box.sizes == [4 * CHUNK] * PLACES_PER_PEER


async def test_slow_strangers_keep_no_candidate_from_the_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """However many ask, again and again, and take no byte: a candidate has places that no stranger takes."""
    monkeypatch.setattr(StateTeller, "_compute_patience", lambda *_: 69.0)  # as for 16 MiB
    run, reading = SealedRun(), set[tuple[PeerId, PeerId]]()
    question = encode(RangeQuestion(8, compute_state_root(run.states[8][0], CHUNK), 0, 8))

    async def ask_for_ever(hub: Hub, peer: PeerId) -> None:
        while True:
            await hub.serve[Kind.CHUNKS](peer, question)

    async with open_scene(run, tmp_path, members=3) as scene, trio.open_nursery() as nursery:
        for hub in scene.members:

            async def send_bulk(
                peer: PeerId, kind: int, head: bytes, payload: memoryview, hub: Hub = hub, send=hub.send_bulk
            ) -> None:
                if peer != scene.hub.me:
                    reading.add((hub.me, peer))
                    await trio.sleep_forever()
                await send(peer, kind, head, payload)

            hub.send_bulk = send_bulk  # type: ignore[method-assign]
            for number in range(PLACES * PLACES_PER_PEER):
                nursery.start_soon(ask_for_ever, hub, STRANGERS[number % PLACES])
        await trio.testing.wait_all_tasks_blocked()
        fetched = await scene.fetch()
        nursery.cancel_scope.cancel()
    assert torch.equal(fetched.parameters, run.states[10][0])
    assert {member for member, _ in reading} == set(scene.sources)
    assert fetched.faults == {}


async def test_a_snapshot_that_is_removed_meanwhile(tmp_path: Path, autojump_clock: Clock) -> None:
    """It is handed out while somebody is being served, and is gone soon after: its room is free then."""
    run, is_slow = SealedRun(), trio.Event()
    root = compute_state_root(run.states[8][0], CHUNK)
    async with open_scene(run, tmp_path, members=1) as scene:
        scene.hub.bulk[Kind.CHUNKS] = box = Box()
        hub, statuses = scene.members[0], []
        send = hub.send_bulk

        async def send_slowly(peer: PeerId, kind: int, head: bytes, payload: memoryview) -> None:
            if decode(head, RangeQuestion).first == 0:
                await is_slow.wait()
            await send(peer, kind, head, payload)

        hub.send_bulk = send_slowly  # type: ignore[method-assign]

        async def ask_chunk(number: int) -> None:
            body = encode(RangeQuestion(8, root, number, number + 1))
            statuses.append(decode(await ask(scene, Kind.CHUNKS, body), ChunksAnswer).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_chunk, 0)
            await trio.testing.wait_all_tasks_blocked()
            del run.snapshots.held[8]
            await ask_chunk(1)
            is_slow.set()
        await trio.sleep(2 * LOOK_S)
        await ask_chunk(2)
        assert statuses == [Status.SENT, Status.SENT, Status.GONE]
        assert box.sizes == [4 * CHUNK] * 2


async def test_a_reader_that_never_rests_does_not_keep_what_is_gone(tmp_path: Path, autojump_clock: Clock) -> None:
    """With the next snapshot, one whose file is gone is held no longer: its room would never be free."""
    run, opened = SealedRun(rounds=12), []
    newest = run.snapshots.held.pop(12)
    find = run.snapshots.map

    def find_and_note(finished: int) -> StoredState | None:
        stored = find(finished)
        opened.append((finished, weakref.ref(stored)))
        return stored

    run.snapshots.map = find_and_note  # type: ignore[method-assign]
    async with open_scene(run, tmp_path, members=1) as scene:
        scene.hub.bulk[Kind.CHUNKS] = Box()

        async def ask_chunk(number: int) -> set[int]:
            """The snapshots that the member holds open afterwards."""
            root = compute_state_root(run.states[number][0], CHUNK)
            reply = await ask(scene, Kind.CHUNKS, encode(RangeQuestion(number, root, 0, 1)))
            assert decode(reply, ChunksAnswer).status is Status.SENT
            gc.collect()
            return {finished for finished, stored in opened if stored() is not None}

        assert await ask_chunk(4) == {4}
        del run.snapshots.held[4]
        run.snapshots.held[12] = newest
        assert await ask_chunk(12) == {12}
