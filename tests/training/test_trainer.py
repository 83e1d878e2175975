"""The trainer: real peers in one program, over TCP and UDP on loopback."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trio

from btard.dht import Directory, open_directory
from btard.errors import ConfigError, Refused, Undecided, Unreachable
from btard.identity import Identity, PeerId
from btard.identity.work import is_identity_worked
from btard.net import Address, Hub, TcpTransport, Terms, open_tcp
from btard.robust import compute_chunk_size
from btard.rules.config import RunConfig, parse_run_file
from btard.swarm.events import RunStarted
from btard.swarm.frames import Kind
from btard.swarm.ledger_files import LEDGER_FILE
from btard.training import (
    RUN_FILE_KEY,
    Endpoint,
    Progress,
    Ready,
    Trainer,
    TrainingEvent,
    TrainingResult,
    build_workload,
    load_checkpoint,
    run_in_asyncio,
    run_in_thread,
)
from btard.training.checkup import Stage
from btard.training.leave_pipe import ask_to_leave, is_listening
from btard.training.notebook import NOTEBOOK_FILE, Notebook
from btard.training.trainer import time_gradient

FOUNDER, MEMBER, STRANGER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
LOOPBACK = Address("127.0.0.1", 0)


def make_config(rounds: int, state_interval: int) -> RunConfig:
    """Two peers that train digits with tiny batches and wide radii."""
    draft = RunConfig(
        founder=FOUNDER.peer_id.hex(),
        genesis_size=2,
        rounds=rounds,
        task_options={"batch_size": 4},
        delta=50.0,
        tolerance=1e-3,
        state_interval=state_interval,
        identity_bits=8,
    )
    job = build_workload(draft)
    chunk_size = compute_chunk_size(job.elements, 2)
    return replace(draft, elements=job.elements, dataset=job.task.fingerprint().hex(), chunk_size=chunk_size)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """Three rounds, a checkpoint after two."""
    return make_config(rounds=3, state_interval=2)


Make = Callable[..., Trainer]


@pytest.fixture
def make(config: RunConfig, tmp_path: Path) -> Make:
    """Return a function that makes a trainer in a directory of its own; by default the founder."""

    def make(identity: Identity = FOUNDER, founder: Address | None = None, **options: object) -> Trainer:
        endpoint = Endpoint(bootstrap=(founder,) if founder else (), patience_s=options.pop("patience_s", 60.0))
        directory = tmp_path / identity.peer_id.hex()[:8]
        return Trainer(options.pop("config", config), identity, directory, endpoint, **options)

    return make


class Watch:
    """Collects events; ``address`` waits until a peer listens."""

    def __init__(self) -> None:
        self.events: list[TrainingEvent] = []
        self.changed = trio.Event()

    def __call__(self, event: TrainingEvent) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = trio.Event()

    async def address(self) -> Address:
        """Return where the peer listens, once it does."""
        while not (ready := [event for event in self.events if isinstance(event, Ready)]):
            await self.changed.wait()
        return ready[0].addresses[0]

    async def progress(self) -> None:
        """Return once a round is done."""
        while not any(isinstance(event, Progress) for event in self.events):
            await self.changed.wait()


async def run_two(make: Make, watch: Watch, **options: object) -> list[TrainingResult]:
    """Return the results of a founder and a member that find each other."""
    results: list[TrainingResult] = []

    async def run(trainer: Trainer) -> None:
        results.append(await trainer.run())

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, make(observe=watch, evaluate_every=2, **options))
            address = await watch.address()
            nursery.start_soon(run, make(MEMBER, address))
    return results


def test_a_trainer_tells_newcomers_how_far_it_is(make):
    """Before genesis there are no members; afterwards they are counted, and those of them with a link."""
    trainer, hub = make(), Hub(None, FOUNDER.peer_id)
    assert trainer._tell_stage(hub) == Stage()
    trainer._observe(RunStarted((FOUNDER.peer_id, MEMBER.peer_id)))
    hub._sessions = {MEMBER.peer_id: None, PeerId(b"stranger".ljust(32)): None}
    assert trainer._tell_stage(hub) == Stage(round=0, members=2, links=1)


async def test_the_door_knows_members(make, monkeypatch):
    """A trainer's transport lets members dial as such, and nobody else."""
    doors = []

    @asynccontextmanager
    async def open_watched(*arguments: object) -> AsyncIterator[TcpTransport]:
        async with open_tcp(*arguments) as tcp:
            doors.append(tcp.arrivals)
            yield tcp

    monkeypatch.setattr("btard.training.trainer.open_tcp", open_watched)
    await run_two(make, Watch())
    assert all(door.is_known(MEMBER.peer_id) and door.is_known(FOUNDER.peer_id) for door in doors)
    assert not any(door.is_known(PeerId(b"stranger".ljust(32))) for door in doors)


async def test_every_peer_works_for_its_dht_node(make, config, monkeypatch):
    """Members of the genesis show the identity work of the run too, ask others for it, and keep it on disk."""
    shown = []

    @asynccontextmanager
    async def open_watched(identity: Identity, *arguments: object, **options: object) -> AsyncIterator[Directory]:
        shown.append((identity.peer_id, options["work"]))
        async with open_directory(identity, *arguments, **options) as directory:
            yield directory

    monkeypatch.setattr("btard.training.trainer.open_directory", open_watched)
    results = await run_two(make, Watch())
    assert {peer for peer, _ in shown} == {FOUNDER.peer_id, MEMBER.peer_id}
    for peer, work in shown:
        home = results[0].checkpoint.parents[2] / peer.hex()[:8]
        assert Notebook(home / NOTEBOOK_FILE, peer, config.run_id).identity_nonce == work.nonce
        assert work.bits == config.identity_bits
        assert is_identity_worked(peer, work.nonce, work.bits)


async def test_two_trainers_end_with_one_model(make, config):
    """Both end with the same parameters, evaluated, and with a checkpoint that holds them and the whole run file."""
    watch = Watch()
    results = await run_two(make, watch)
    for result in results:
        assert result.is_finished
        assert result.rounds == 3
        assert result.state == results[0].state
        assert torch.equal(result.parameters, results[0].parameters)
        assert result.evaluation is not None
        saved = load_checkpoint(result.checkpoint)
        assert (saved.round, saved.state.step) == (3, 3)
        assert torch.equal(saved.parameters, result.parameters)
        assert parse_run_file(saved.metadata[RUN_FILE_KEY]) == config
        assert (result.checkpoint.parent / "round-000002.safetensors").exists()


async def test_a_state_that_nobody_confirms_is_kept(make, monkeypatch):
    """Alone after the last round a peer cannot know how the others ended; what it came to is there to be looked at."""
    results = await run_two(make, Watch())
    last = next(item for item in results if MEMBER.peer_id.hex()[:8] in item.checkpoint.parts)
    last.checkpoint.unlink()
    with closing(sqlite3.connect(last.checkpoint.parent.parent / LEDGER_FILE)) as ledger, ledger:
        ledger.execute("DELETE FROM endings")
        ledger.execute("DELETE FROM signatures WHERE round = 3")
    monkeypatch.setattr("btard.swarm.rounds.WARM_UP_S", 0.1)
    with trio.fail_after(100), pytest.raises(Undecided, match="confirmed by nobody"):
        await make(MEMBER).run()
    assert torch.equal(load_checkpoint(last.checkpoint).parameters, last.parameters)


async def test_events_come_in_order_and_evaluated_where_due(make):
    """A watcher is told when the peer listens, who takes part, and every round, each second one with its loss."""
    watch = Watch()
    await run_two(make, watch)
    kinds = [type(event) for event in watch.events]
    assert kinds == [Ready, RunStarted, Progress, Progress, Progress]
    evaluations = [event.evaluation for event in watch.events if isinstance(event, Progress)]
    assert [item is not None for item in evaluations] == [False, True, False]


async def test_stopped_trainer_keeps_its_state(make):
    """A trainer that is stopped in the middle returns what it has, and has it on disk."""
    results: list[TrainingResult] = []
    founder: Trainer | None = None
    watch = Watch()

    def observe(event: TrainingEvent) -> None:
        watch(event)
        if isinstance(event, Progress) and event.round == 1:
            founder.stop()

    founder = make(observe=observe)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            member: Trainer | None = None

            async def run() -> None:
                results.append(await founder.run())
                member.stop()

            nursery.start_soon(run)
            member = make(MEMBER, await watch.address())
            nursery.start_soon(member.run)
    (result,) = results
    assert not result.is_finished
    assert result.evaluation is None
    assert result.rounds >= 1
    assert load_checkpoint(result.checkpoint).round == result.rounds


async def test_stopped_before_it_began(make):
    """A trainer may be stopped before it runs; then it opens nothing and writes no checkpoint."""
    trainer = make()
    trainer.stop()
    result = await trainer.run()
    assert (result.is_finished, result.rounds, result.checkpoint) == (False, 0, None)


async def test_told_to_leave_before_training_begins(make, tmp_path):
    """Nobody counts on a peer that waits for others: it ends well at once, and a second process steals no request."""
    watch, results = Watch(), []
    trainer = make(observe=watch)

    async def run() -> None:
        results.append(await trainer.run())

    directory = tmp_path / FOUNDER.peer_id.hex()[:8]
    with trio.fail_after(100):
        async with trio.open_nursery() as inner:
            inner.start_soon(run)
            await watch.address()
            with pytest.raises(ConfigError, match="in use by another"):
                await make().run()
            assert ask_to_leave(directory)
    (result,) = results
    assert (result.is_finished, result.rounds, result.checkpoint) == (True, 0, None)
    assert not is_listening(directory)


async def test_whoever_trusts_a_seal_that_the_run_lacks_is_refused(make, config):
    """A run that began without the seal that its user trusts is not joined, and the reason says what to do."""
    endless, watch = replace(config, rounds=10_000), Watch()
    trainers = [make(observe=watch, config=endless)]

    with trio.fail_after(100):
        async with trio.open_nursery() as inner:
            inner.start_soon(trainers[0].run)
            address = await watch.address()
            trainers.append(make(MEMBER, address, config=endless))
            inner.start_soon(trainers[1].run)
            await watch.progress()
            with pytest.raises(Refused, match=r"does not know the seal 7878.*Ask somebody you trust"):
                await make(STRANGER, address, config=endless, trusted_seal=b"x" * 32).run()
            for trainer in trainers:
                trainer.stop()


async def test_founder_out_of_reach(make):
    """Without an address, nobody is found."""
    with pytest.raises(Unreachable, match="names no address"):
        await make(MEMBER, patience_s=0.0).run()


async def test_founder_that_leaves_before_the_beginning(make, config, nursery):
    """A member whose founder goes away before training begins says so, and what to do."""

    async def be_founder(*, task_status: trio.TaskStatus[Address]) -> None:
        async with open_tcp(FOUNDER, Terms(config.run_id), Address("127.0.0.1", 0)) as tcp:
            hub = Hub(tcp, FOUNDER.peer_id)

            async def leave(peer: PeerId, body: bytes) -> tuple[bytes, None]:
                scope.cancel()
                return b"", None

            hub.serve[Kind.HELLO] = leave
            task_status.started(tcp.address)
            with trio.CancelScope() as scope:
                await hub.run()

    address = await nursery.start(be_founder)
    with pytest.raises(Unreachable, match="training had not begun: join again"):
        await make(MEMBER, address, patience_s=1.0).run()


async def test_wildcard_must_be_announced_under_another_name(config, tmp_path):
    """Who listens on every interface must say which address is its own."""
    trainer = Trainer(config, FOUNDER, tmp_path, Endpoint(listen=(LOOPBACK, Address("0.0.0.0", 0))))
    with pytest.raises(ConfigError, match="--announce"):
        await trainer.run()


def test_other_data_are_refused(make, config):
    """A run on other data, or with another model, is refused before anything is opened."""
    with pytest.raises(Refused, match="data of task digits differ"):
        make(config=replace(config, dataset="00" * 32))
    with pytest.raises(Refused, match="60522 parameters here, 60523 in the run"):
        make(config=replace(config, elements=60_523))


def test_timing_leaves_out_the_first_gradient():
    """The gradient that warms up does not count, and the time is rounded up to milliseconds."""
    calls: list[str] = []
    times = iter([1.0, 1.0101])

    class Job:
        def initial_parameters(self) -> None:
            return None

        def gradient(self, parameters: object, seed: bytes) -> None:
            calls.append("gradient")

    def clock() -> float:
        calls.append("clock")
        return next(times)

    assert time_gradient(Job(), clock) == 11
    assert calls == ["gradient", "clock", "gradient", "clock"]


def test_threads_and_asyncio(make):
    """One peer in a thread, the other in asyncio: both train to the end."""

    async def train() -> tuple[TrainingResult, TrainingResult]:
        loop = asyncio.get_running_loop()
        address: asyncio.Future[Address] = loop.create_future()

        def observe(event: TrainingEvent) -> None:
            if isinstance(event, Ready):
                loop.call_soon_threadsafe(address.set_result, event.addresses[0])

        founder = run_in_thread(make(observe=observe))
        member = await run_in_asyncio(make(MEMBER, await address))
        return await asyncio.wrap_future(founder), member

    founder, member = asyncio.run(asyncio.wait_for(train(), 100))
    assert founder.is_finished
    assert founder.state == member.state


def test_cancelled_in_asyncio(make):
    """A task that is cancelled in asyncio stops its trainer first, and its port is free again."""

    async def train() -> Trainer:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        trainer = make(observe=lambda event: loop.call_soon_threadsafe(ready.set))
        task = asyncio.create_task(run_in_asyncio(trainer))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return trainer

    trainer = asyncio.run(asyncio.wait_for(train(), 100))
    with pytest.raises(trio.RunFinishedError):
        trainer._token.run_sync_soon(print)
