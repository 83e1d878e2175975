"""Freezes, losses of power and sieges really strike."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from btard.attacks import SIEGES
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, Reveal, Stage
from btard.sim.freezing import Freezer
from btard.sim.play import play
from btard.sim.power import RUNNING, PowerSupply
from btard.sim.scenario import Crash, Freeze, Moment, Scenario, Siege
from btard.swarm.ledger import Ledger
from btard.wire import open_message, sign_message

CALM = Scenario(1, 4, 6, "stub", {}, 1, ())
ME = Identity(bytes(32))
CONFIG = RunConfig(founder=ME.peer_id.hex(), genesis_size=4, elements=32, chunk_size=8, tau=1.0, delta=8.0)


async def test_a_frozen_peer_does_nothing_and_then_all_that_is_due(autojump_clock: trio.testing.MockClock) -> None:
    """Neither timers nor wake-ups move it; others go on, and afterwards what piled up happens at one instant."""
    steps: dict[int, list[float]] = {0: [], 1: []}
    wake, freezer = trio.Event(), Freezer()

    async def sleep(index: int, second: int) -> None:
        RUNNING.set(index)
        await trio.sleep(second)
        steps[index].append(trio.current_time())

    async def listen() -> None:
        RUNNING.set(1)
        await wake.wait()
        steps[1].append(trio.current_time())

    with freezer.connected():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for index, second in ((index, second) for index in (0, 1) for second in (1, 3, 5, 9)):
                nursery.start_soon(sleep, index, second)
            await trio.sleep(2)
            nursery.start_soon(freezer.freeze, 1, 5)
            await trio.sleep(1)
            wake.set()
    assert steps == {0: [1, 3, 5, 9], 1: [1, 7, 7, 7, 9]}


@pytest.mark.parametrize(("lasts_s", "removed"), [(2.0, set()), (30.0, {2})])
def test_a_frozen_peer_is_waited_for_until_the_deadline(lasts_s: float, removed: set[int], tmp_path: Path) -> None:
    """A short freeze costs its peer nothing, a long one its place; both take the others' time, and no blame follows."""
    report = play(replace(CALM, freezes=(Freeze(2, 2, lasts_s),)), tmp_path)
    assert (report.violations, report.rounds_done, report.scenario.is_synchronous) == ((), 6, False)
    assert set(report.find_leavers(DepartureKind.REMOVAL)) == removed
    assert len(report.departures) == len(removed)
    assert report.virtual_s > min(lasts_s, 5)


def write(ledger: Ledger, attempt: int) -> None:
    """Store a message of ours."""
    stage = Stage(1, attempt, Phase.REVEAL)
    envelope = sign_message(ME, CONFIG.run_id, bytes(32), stage, b"", Reveal(bytes(32), ())).envelope
    ledger.record_message(open_message(CONFIG.run_id, envelope))


@pytest.fixture
def running() -> Iterator[None]:
    """Run the test as peer 0."""
    token = RUNNING.set(0)
    yield
    RUNNING.reset(token)


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", [True, True, False]), ("NORMAL", [False] * 3)])
@pytest.mark.usefixtures("running")
def test_a_loss_of_power_takes_what_was_not_synced(synchronous: str, kept: list[bool], tmp_path: Path) -> None:
    """There is all up to the newest synced commit, nothing lazy after it, and nothing that the dying process does."""
    supply = PowerSupply(lambda crash: None, [0])
    supply.arm(Crash(0, 1, Moment.WRITTEN, 3, 0.1, loses_power=True))
    with supply.connected():
        with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
            ledger._database.execute(f"PRAGMA synchronous = {synchronous}")
            write(ledger, 0)
            write(ledger, 1)
            ledger.record_work(1, 0, b"lazy")  # the third step: the machine goes dark
            write(ledger, 2)
        supply.restore(0, tmp_path)
        with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
            found = [ledger.stored_message(Stage(1, attempt, Phase.REVEAL)) is not None for attempt in range(3)]
            assert (found, ledger.newest_work()) == (kept, None)


@pytest.mark.parametrize("moment", list(Moment))
def test_a_peer_returns_after_its_machine_lost_power(moment: Moment, tmp_path: Path) -> None:
    """With what was synced it keeps its place and signs no slot twice."""
    report = play(replace(CALM, crashes=(Crash(2, 2, moment, 3, 0.1, loses_power=True),)), tmp_path)
    assert (report.violations, report.rounds_done, report.departures) == ((), 6, ())
    assert (report.counts["crashes"], report.counts["restarts"], report.counts["returned"]) == (1, 1, 1)


def test_what_is_not_synced_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that does not wait for its disk does not bring its peer back: it lacks what its peer has said."""
    create = Ledger.create

    def create_careless(directory: Path, config: RunConfig, me: bytes) -> Ledger:
        ledger = create(directory, config, me)  # type: ignore[arg-type]
        ledger._database.execute("PRAGMA synchronous = NORMAL")
        return ledger

    monkeypatch.setattr(Ledger, "create", create_careless)
    report = play(replace(CALM, crashes=(Crash(2, 2, Moment.WRITTEN, 3, 0.1, loses_power=True),)), tmp_path)
    assert ["the ledger is an older copy" in item.detail for item in report.violations] == [True]
    assert "returned" not in report.counts


@pytest.mark.parametrize("kind", SIEGES)
def test_strangers_besiege_some_peers_and_cost_nobody_anything(kind: str, tmp_path: Path) -> None:
    """Their words arrive, from nobody of the run; all invariants hold, and no member leaves."""
    (tmp_path / "swarm").mkdir()
    scenario = replace(CALM, rounds=20, sieges=(Siege(kind, 2, (1, 2), 1, 1.5),))
    with (tmp_path / "trace").open("w+") as file:
        report = play(scenario, tmp_path / "swarm", trace_file=file)
        file.seek(0)
        words = [line for line in file if " -1 -> " in line]
    assert (report.violations, report.rounds_done, report.departures) == ((), 20, ())
    assert bool(words) is (kind != "half-open")
