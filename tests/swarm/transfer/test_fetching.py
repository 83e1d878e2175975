"""A newcomer comes to the right state whatever some sources do, and says who did what."""

from pathlib import Path

import pytest
import torch
import trio
from tests.swarm.transfer import lies, sealed_run
from tests.swarm.transfer.lies import Lie
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import MomentumTask, SealedRun
from torch import Tensor

from btard.errors import ConfigError, RemoteProtocolError, Unreachable
from btard.swarm.frames import Kind
from btard.swarm.joining.fetching_state import FetchedState, Memory, forget_transfer
from btard.swarm.joining.pieces import PieceBoard
from btard.swarm.joining.transfer_frames import Status
from btard.swarm.workload import OptimizerState

Clock = trio.testing.MockClock


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector of some hundred numbers is many pieces."""
    monkeypatch.setattr("btard.swarm.joining.transfer_frames.PIECE_BYTES", 128)


def check_state(run: SealedRun, fetched: FetchedState) -> None:
    """The state is that of the newest seal, bit for bit."""
    parameters, optimizer = run.states[-1]
    assert torch.equal(fetched.parameters, parameters)
    assert fetched.optimizer.step == optimizer.step
    assert torch.equal(fetched.optimizer.buffers["speed"], optimizer.buffers["speed"])
    assert fetched.head.seal == run.seals[-1]


async def fetch_among(scene: Scene, lie: Lie, *liars: int) -> FetchedState:
    """What a newcomer fetches while some members lie in one way."""
    for index in liars:
        lie(scene, scene.members[index])
    fetched = await scene.fetch()
    check_state(scene.run, fetched)
    return fetched


async def test_everybody_honest(tmp_path: Path, autojump_clock: Clock) -> None:
    """X and the optimizer's memory are those of the newest seal, and each byte comes once."""
    run = SealedRun()
    async with open_scene(run, tmp_path) as scene:
        fetched = await scene.fetch()
    check_state(run, fetched)
    assert (fetched.base, dict(fetched.faults)) == (8, {})
    assert scene.progress[-1].done == scene.progress[-1].total == fetched.received == 4 * 500 * (2 + 2)
    assert trio.current_time() < 1.0


class TwinTask(MomentumTask):
    """A job whose optimizer keeps the same numbers under three names."""

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        after, memory = super().step(parameters, aggregate, state)
        twins = {name: memory.buffers["speed"].clone() for name in ("speed", "twin", "third")}
        return after, Memory(memory.step, twins)


async def test_vectors_that_are_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock) -> None:
    """They have one root and different places: each is fetched, though one member has all, and nobody is blamed."""
    monkeypatch.setattr(sealed_run, "MomentumTask", TwinTask)
    run = SealedRun(elements=sealed_run.CHUNK)
    async with open_scene(run, tmp_path, members=1) as scene:
        fetched = await scene.fetch()
    check_state(run, fetched)
    buffers = fetched.optimizer.buffers
    assert torch.equal(buffers["twin"], buffers["speed"])
    assert len({buffer.data_ptr() for buffer in buffers.values()}) == 3
    assert (fetched.received, fetched.faults) == (4 * sealed_run.CHUNK * (4 + 2), {})


async def test_every_source_has_several_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """However large a piece may be, each of four sources has four pieces of a vector or more."""
    monkeypatch.setattr("btard.swarm.joining.transfer_frames.PIECE_BYTES", 1 << 20)
    monkeypatch.setattr("btard.swarm.joining.fetching_vectors.LEAST_PIECE_BYTES", 1)
    pieces: list[int] = []
    monkeypatch.setattr(
        "btard.swarm.joining.fetching_vectors.PieceBoard",
        lambda missing, shortest_s: pieces.append(len(found := list(missing))) or PieceBoard(found, shortest_s),
    )
    run = SealedRun()
    async with open_scene(run, tmp_path) as scene:
        check_state(run, await scene.fetch())
    assert pieces
    assert min(pieces) >= 4 * len(scene.members)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lies.change_outline(lies.claim_length), "other lengths than the run allows"),
        (lies.change_outline(lies.claim_step), "not the state that seal 8 names"),
        (lies.change_outline(lies.name_twice), "other lengths than the run allows"),
        (lies.change_outline(lies.claim_shorter), "do not give the root"),
        (lies.false_leaves, "do not give the root"),
        (lies.no_leaves, "does not have the leaf digests"),
        (lies.send_instead(lambda chunk: chunk), "is not the sealed one"),
        (lies.send_instead(lambda chunk: chunk[:-4]), "other bytes than it was asked for"),
        (lies.send_instead(lambda chunk: chunk + bytes(4)), "other bytes than it was asked for"),
        (lies.send_instead(lambda chunk: b""), "other bytes than it was asked for"),
        *((lies.answer_nonsense(kind), "not a valid message") for kind in (Kind.OFFER, Kind.SEGMENT, Kind.OUTLINE)),
        *((lies.answer_nonsense(kind), "not a valid message") for kind in (Kind.CLAIMS, Kind.CHUNKS)),
    ],
)
async def test_one_lies(lie: Lie, reason: str, tmp_path: Path, autojump_clock: Clock) -> None:
    """It is named as a liar, nobody else is, and the state is right."""
    async with open_scene(SealedRun(), tmp_path) as scene:
        fetched = await fetch_among(scene, lie, 0)
        assert set(fetched.faults) == {scene.sources[0]}
    assert fetched.faults[scene.sources[0]].lied
    assert reason in fetched.faults[scene.sources[0]].reason


@pytest.mark.parametrize(
    ("lie", "reason", "limit_s"),
    [
        (lies.be_silent(Kind.OFFER), "", 5),
        (lies.be_silent(Kind.CLAIMS), "", 5),
        (lies.be_silent(Kind.OUTLINE, Kind.SEGMENT), "", 5),
        (lies.be_silent(Kind.CHUNKS), "much slower than the others", 5),
        (lies.be_slow, "much slower than the others", 5),
        (lies.vanish, "the link to", 5),
        (lies.answer_status(Status.GONE), "does not have this any more", 5),
        (lies.answer_status(Status.SENT), "much slower than the others", 5),
        (lies.answer_status(Status.BUSY), "much slower than the others", 15),
    ],
)
async def test_one_does_not_deliver(
    lie: Lie, reason: str, limit_s: float, tmp_path: Path, autojump_clock: Clock
) -> None:
    """The others deliver what it does not, within seconds, and it is not called a liar."""
    async with open_scene(SealedRun(), tmp_path) as scene:
        fetched = await fetch_among(scene, lie, 0)
        assert set(fetched.faults) <= {scene.sources[0]}
        assert not any(fault.lied for fault in fetched.faults.values())
        if reason:
            assert reason in fetched.faults[scene.sources[0]].reason
    assert trio.current_time() < limit_s


@pytest.mark.parametrize("liars", [(0, 1, 2), (2, 4, 6)])
async def test_three_of_seven_lie(liars: tuple[int, ...], tmp_path: Path, autojump_clock: Clock) -> None:
    """All three are named, and the four others suffice."""
    async with open_scene(SealedRun(), tmp_path) as scene:
        fetched = await fetch_among(scene, lies.send_instead(lambda chunk: chunk), *liars)
        assert set(fetched.faults) == {scene.sources[index] for index in liars}
    assert all(fault.lied for fault in fetched.faults.values())


@pytest.mark.parametrize("lie", [lies.change_claims(lies.claim_unmoved), lies.give_other_aggregate])
@pytest.mark.parametrize("members", [7, 5])
async def test_three_claim_another_aggregate(members: int, lie: Lie, tmp_path: Path, autojump_clock: Clock) -> None:
    """Beside four others they are not believed; beside two they are tried, convicted by the step, and named."""
    async with open_scene(SealedRun(), tmp_path, members=members) as scene:
        fetched = await fetch_among(scene, lie, 0, 1, 2)
        assert set(fetched.faults) == (set(scene.sources[:3]) if members == 5 else set())
    assert all(fault.lied and "does not lead to the seal" in fault.reason for fault in fetched.faults.values())


async def test_all_lie(tmp_path: Path, autojump_clock: Clock) -> None:
    """There is no state, and everyone's lie is told."""
    async with open_scene(SealedRun(), tmp_path, members=2) as scene:
        with pytest.raises(RemoteProtocolError, match="nobody is left") as caught:
            await fetch_among(scene, lies.false_leaves, 0, 1)
    assert str(caught.value).count("do not give the root") == 2


async def test_nobody_is_there(tmp_path: Path, autojump_clock: Clock) -> None:
    """The error says so."""
    async with open_scene(SealedRun(), tmp_path, members=2) as scene:
        line = await scene.ask_line()
        for peer in scene.sources:
            scene.network.disconnect(peer)
        with pytest.raises(Unreachable, match="nobody is left who gives us a state"):
            await scene.fetch(line)


async def test_a_young_run_has_no_snapshot(tmp_path: Path, autojump_clock: Clock) -> None:
    """Everything is replayed from x_0, which every peer works out by itself."""
    run = SealedRun(rounds=3)
    async with open_scene(run, tmp_path) as scene:
        fetched = await scene.fetch()
    check_state(run, fetched)
    assert (fetched.base, fetched.received) == (0, 3 * 4 * 500)


async def test_another_beginning_is_our_own_mistake(tmp_path: Path, autojump_clock: Clock) -> None:
    """A task whose x_0 differs from the run's is refused before anything is replayed."""
    run = SealedRun(rounds=3)
    async with open_scene(run, tmp_path) as scene:
        run.task.initial_parameters = lambda: torch.zeros(500)  # type: ignore[method-assign]
        with pytest.raises(ConfigError, match="our initial parameters differ"):
            await scene.fetch()


async def test_the_newest_seal_is_a_snapshot(tmp_path: Path, autojump_clock: Clock) -> None:
    """Nothing is replayed."""
    run = SealedRun(rounds=8)
    async with open_scene(run, tmp_path) as scene:
        fetched = await scene.fetch()
    check_state(run, fetched)
    assert (fetched.base, fetched.received) == (8, 2 * 4 * 500)


async def test_a_round_that_did_not_move(tmp_path: Path, autojump_clock: Clock) -> None:
    """Its aggregate is not fetched."""
    run = SealedRun(unapplied=[9])
    async with open_scene(run, tmp_path) as scene:
        fetched = await scene.fetch()
    check_state(run, fetched)
    assert fetched.received == (2 + 1) * 4 * 500


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_killed_newcomer_goes_on(is_damaged: bool, tmp_path: Path, autojump_clock: Clock) -> None:
    """What had arrived is not asked for again, unless the disk changed it meanwhile."""
    run = SealedRun()
    async with open_scene(run, tmp_path) as scene:
        with trio.CancelScope() as killed:
            scene.on_progress = lambda item: killed.cancel() if item.done > 3000 else None
            await scene.fetch()
        assert killed.cancelled_caught
        path = scene.directory / "transfer" / "state-8-0.bin"
        if is_damaged:
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        scene.on_progress = scene.progress.append
        fetched = await scene.fetch()
        check_state(run, fetched)
        forget_transfer(scene.directory)
        assert not list((scene.directory / "transfer").iterdir())
    assert fetched.kept >= 3000 - 64 * is_damaged
    assert fetched.received == 4 * 4 * 500 - fetched.kept
    assert torch.equal(fetched.optimizer.buffers["speed"], run.states[-1][1].buffers["speed"])


async def test_a_snapshot_that_is_gone_is_replaced(tmp_path: Path, autojump_clock: Clock) -> None:
    """Members that lose the newest snapshot meanwhile still have the one before."""
    run = SealedRun()
    async with open_scene(run, tmp_path) as scene:
        for hub in scene.members[1:]:
            lies.answer_status(Status.GONE)(scene, hub)
        honest = scene.members[0].serve[Kind.OFFER]
        for hub in scene.members[1:]:
            hub.serve[Kind.OFFER] = honest
        fetched = await scene.fetch()
    check_state(run, fetched)
    assert not any(fault.lied for fault in fetched.faults.values())
