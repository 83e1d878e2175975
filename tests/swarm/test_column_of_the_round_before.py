"""A column of the round before that holds slices of somebody who has left: what its aggregator answers for."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, lag

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.disputes import DisputeKind
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import AnyPayload, Commit, Phase, Stage
from btard.rules.parts import Part
from btard.swarm.board import yes
from btard.swarm.conduct import Conduct
from btard.swarm.events import DisputeOpened, Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.scatter import Slices
from btard.swarm.state import Gradient

AGGREGATES, WATCHES, LEAVES, GIVES, LIES = 0, 1, 2, 3, 4
ROUND = 4
"""By the seed of the run its draw has the liar validated."""


class FalseReport(Conduct):
    """Reports another norm on the victim's part, far from the truth, in one round."""

    victim = PeerId(b"")

    async def reports(self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple) -> tuple:
        """Return the reports, one of them false."""
        if round_number != ROUND:
            return reports
        return tuple(
            replace(report, norm=report.norm + 3.0) if part.aggregator == self.victim else report
            for part, report in zip(parts, reports, strict=True)
        )


class Scene:
    """Five members. One cheat reports falsely, and is convicted in the COMMIT in which the other one leaves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, mute: set[int], members: int = 5) -> None:
        self.opened, self.mute, self.seen_s = list[DisputeOpened](), mute, 0.0
        liar = FalseReport()
        config = {"genesis_size": members, "rounds": 7, "validators": members // 4}
        conducts = {LIES: liar, **{index: Conduct() for index in mute | {LEAVES} if index != LIES}}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        liar.victim = self.victim = self.hostile.peers[AGGREGATES]
        self.hostile.swarm.network.delivery = lag
        alter_said(monkeypatch, self.hostile, self.change)

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Let one of the cheats leave: it comes to another state."""
        is_last = who == LEAVES and stage.round == ROUND + 1 and isinstance(payload, Commit)
        return replace(payload, state=bytes(32)) if is_last else payload

    def watch(self, who: int, event: Event) -> None:
        """Let the mute give their slices to nobody who asks, and note what an honest member saw opened."""
        if who in self.mute and isinstance(event, RunStarted | Resumed):
            self.hostile.hubs[self.hostile.peers[who]].serve[Kind.PULL_SLICE] = _refuse
        if who == WATCHES and isinstance(event, DisputeOpened):
            self.opened.append(event)
            self.seen_s = trio.current_time()

    async def run(self) -> None:
        """Run to the end: the cheats leave, nobody else does, and the column was opened."""
        outcome = await self.hostile.run()
        left = {who: event.cause for kind in DepartureKind for who, event in outcome.departures(kind).items()}
        assert left == {LIES: Cause.FALSE_REPORT, LEAVES: Cause.OTHER_STATE}
        assert (DisputeKind.COLUMN, ROUND, self.victim) in {(it.kind, it.round, it.accused) for it in self.opened}


async def _refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
    return b"", None


async def test_whoever_lost_a_slice_of_somebody_who_left_says_so_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The aggregator is started again once it has committed to its aggregate; the cheats give it nothing again."""
    scene = Scene(monkeypatch, tmp_path, {LIES, LEAVES})
    killed = kill_after(scene.hostile.swarm, AGGREGATES, Phase.AGGREGATE, ROUND, back_s=0.3)
    await scene.run()
    assert killed


async def test_whoever_said_to_have_it_and_was_started_again_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It got it from somebody who leaves since, says so, and is killed before it has sent it to anybody."""
    scene = Scene(monkeypatch, tmp_path, {LIES})
    before = kill_after(scene.hostile.swarm, AGGREGATES, Phase.AGGREGATE, ROUND, back_s=0.3)
    killed = kill_after(scene.hostile.swarm, AGGREGATES, Phase.DISPUTE_PUBLISH, ROUND + 1, back_s=0.3, first_attempt=2)
    forward = Slices.forward

    def send(self: Slices, *args: object) -> None:
        if killed:
            forward(self, *args)

    monkeypatch.setattr(Slices, "forward", send)
    await scene.run()
    assert before
    assert killed


@pytest.mark.parametrize("late_s", [1.0, 2.0])
async def test_what_comes_too_late_to_be_published_is_called_lacking(
    late_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A third cheat gives it what it lost, once the others have asked it in vain: they could not hold it as well."""
    scene = Scene(monkeypatch, tmp_path, {LIES, LEAVES, GIVES}, members=7)
    hostile, keep_own = scene.hostile, Slices.keep_own
    cheats = dict[PeerId, Slices]()

    def keep(self: Slices, number: int, gradient: Gradient) -> None:
        cheats[self._hub.me] = self
        keep_own(self, number, gradient)

    async def give(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        is_open = any(event.kind is DisputeKind.COLUMN for event in scene.opened)
        if peer != scene.victim or not is_open or trio.current_time() < scene.seen_s + 4 * hostile.config.delay_s:
            return b"", None
        await trio.sleep(late_s)
        slices = cheats[hostile.peers[LEAVES]]
        monkeypatch.setattr(slices, "_admits", yes)
        monkeypatch.setattr(slices, "_offers", yes)
        return await slices._serve(peer, body)

    def watch(who: int, event: Event) -> None:
        scene.watch(who, event)
        if who == GIVES and isinstance(event, RunStarted | Resumed):
            hostile.hubs[hostile.peers[who]].serve[Kind.PULL_SLICE] = give

    monkeypatch.setattr(Slices, "keep_own", keep)
    hostile.swarm._watch = watch
    killed = kill_after(hostile.swarm, AGGREGATES, Phase.AGGREGATE, ROUND, back_s=0.3)
    await scene.run()
    assert killed
