"""What a member says in recoveries must neither stop the swarm nor cost an honest member its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import AnyPayload, Confirm, Halt, Phase, Position, SignedMessage, Slot, Stage, View
from btard.rules.roster import Roster
from btard.sim import Outcome
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, RoundDone, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.recovery import Recovery
from btard.wire import encode, sign_message

Clock = trio.testing.MockClock
Change = Callable[[SignedMessage], SignedMessage | None]
Z = 1


class Altered(Conduct):
    """Says other things than it should; to everyone the same, so it never equivocates."""

    def __init__(self, change: Callable[[SignedMessage, Identity, bytes], bytes | None]) -> None:
        self._change, self._said = change, dict[Slot, bytes | None]()

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        if message.slot not in self._said:
            self._said[message.slot] = self._change(message, identity, run_id)
        return self._said[message.slot]


def sign_again(message: SignedMessage, identity: Identity, run_id: bytes, **changes: object) -> bytes:
    """Return a message signed anew with some fields changed."""
    payload, previous = message.payload, changes.pop("previous", message.previous)
    return sign_message(
        identity, run_id, message.roster, message.slot.stage, previous, replace(payload, **changes)
    ).envelope


def is_due(message: SignedMessage, phase: Phase) -> bool:
    """Return whether a message is of a phase, and of round 2 or later."""
    stage = message.slot.stage
    return stage.phase is phase and (stage.round == 0 or stage.round >= 2)


def close_mouth(hostile: HostileSwarm) -> Callable[[int, Event], None]:
    """Let z serve nobody: what it keeps to itself cannot be pulled from it."""

    def watch(index: int, event: Event) -> None:
        if index == Z and isinstance(event, RunStarted):
            del hostile.hubs[hostile.peers[Z]].serve[Kind.PULL_STAGE]

    return watch


def alter_views(monkeypatch: pytest.MonkeyPatch, hostile: HostileSwarm, change: Callable[[View], View]) -> None:
    """Let z sign another view than it holds, and only that one."""
    build = Recovery._build_view

    def build_other(recovery: Recovery, *, resumed: bool) -> View:
        view = build(recovery, resumed=resumed)
        return change(view) if recovery._broadcast.me == hostile.peers[Z] else view

    monkeypatch.setattr(Recovery, "_build_view", build_other)


def require_only_z_left(outcome: Outcome, rounds: int = 3) -> None:
    """No honest member left, all finished, with one state."""
    assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
    assert {len({done.round for done in peer.rounds}) for peer in outcome.honest} == {rounds}
    gone = {**outcome.departures(DepartureKind.BAN), **outcome.departures(DepartureKind.REMOVAL)}
    assert set(gone) <= {Z}
    assert len(outcome.state_roots) == 1


@pytest.mark.parametrize("size", [4, 7])
async def test_a_halt_said_to_one_member_alone_costs_it_nothing(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Whoever hears a HALT lets everyone hear it: nobody recovers alone until the others count it as silent."""

    def halt(serial: int) -> None:
        content = Halt(Position(2, 0, int(Phase.COMMIT), 0), (hostile.peers[0],), ())
        stage = Stage(0, 0, Phase.HALT, serial)
        hostile.tell(Z, hostile.sign(Z, Roster.of(hostile.peers).digest, stage, content), [2])

    def watch(index: int, event: Event) -> None:
        if index == 2 and isinstance(event, RoundDone) and event.round == 1:
            halt(0)
            halt(1)
        if index == 2 and isinstance(event, Recovered):
            halt(sum(isinstance(item, Recovered) for item in hostile.swarm.outcomes[2].events) + 1)

    config = {"genesis_size": size}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={Z: Conduct()}, watch=watch)
    require_only_z_left(await hostile.run())


async def test_halts_without_end_do_not_stop_the_swarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A member that halts again and again for no reason is heard a bounded number of times."""
    said = [0]

    def halt(roster: tuple[PeerId, ...]) -> None:
        for serial in range(said[0], said[0] + 2):
            content = Halt(Position(2, 0, int(Phase.COMMIT), 0), (hostile.peers[0],), ())
            hostile.tell(Z, hostile.sign(Z, Roster(roster).digest, Stage(0, 0, Phase.HALT, serial), content))

    def watch(index: int, event: Event) -> None:
        if index == 0 and isinstance(event, RoundDone) and event.round == 1:
            halt(event.roster)
        if index == 0 and isinstance(event, Recovered):
            said[0] += 1
            halt(Roster.of(hostile.peers).members)

    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 5}, conducts={Z: Conduct()}, watch=watch)
    outcome = await hostile.run()
    require_only_z_left(outcome)
    assert outcome.virtual_s < 60


async def test_to_stay_behind_on_purpose_costs_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A member that never says REVEAL and claims to be in the stage before is removed: it is excused once."""

    def change(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes | None:
        return None if is_due(message, Phase.REVEAL) else message.envelope

    def fall_behind(view: View) -> View:
        before = Position(view.position.round, view.position.attempt, int(Phase.AGGREGATE), 0)
        return replace(view, position=before, supplied=())

    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 5}, conducts={Z: Altered(change)})
    hostile.swarm._watch = close_mouth(hostile)
    alter_views(monkeypatch, hostile, fall_behind)
    outcome = await hostile.run()
    require_only_z_left(outcome)
    assert outcome.departures(DepartureKind.REMOVAL)[Z].cause is Cause.SILENCE
    assert sum(isinstance(event, Recovered) for event in outcome.honest[0].events) >= 2


async def test_a_message_that_does_not_count_saves_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A member whose REVEAL follows no transcript is removed, though it supplies that message itself."""
    bad: list[bytes] = []
    say = Broadcast.say

    def say_other(self: Broadcast, stage: Stage, roster: bytes, previous: bytes, payload: AnyPayload) -> SignedMessage:
        if self.me != hostile.peers[Z] or stage.phase is not Phase.REVEAL or stage.round < 2:
            return say(self, stage, roster, previous, payload)
        message = say(self, stage, roster, b"x" * 32, payload)
        bad.append(message.envelope)
        return message

    monkeypatch.setattr(Broadcast, "say", say_other)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 5}, conducts={Z: Conduct()})
    alter_views(monkeypatch, hostile, lambda view: replace(view, supplied=tuple(bad[-1:])))
    outcome = await hostile.run()
    require_only_z_left(outcome)
    assert outcome.departures(DepartureKind.REMOVAL)[Z].cause is Cause.SILENCE


class Withholding(Conduct):
    """Keeps its slices of round 3 to itself, so that all others wait in COMMIT."""

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        return round_number != 3


async def test_a_crime_shown_late_undoes_no_sealed_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Somebody shows its own second CONFIRM when everyone has the next COMMITs: it is banned, and the run goes on."""

    def show(roster: tuple[PeerId, ...]) -> None:
        stage = Stage(2, 0, Phase.CONFIRM)
        pair = [hostile.sign(Z, Roster(roster).digest, stage, Confirm(bytes([n]) * 32, ())) for n in (1, 2)]
        halt = Halt(Position(3, 0, int(Phase.COMMIT), 0), (), (encode(hostile.prove(*pair)),))
        hostile.tell(Z, hostile.sign(Z, Roster(roster).digest, Stage(0, 0, Phase.HALT, 0), halt))

    async def show_later(roster: tuple[PeerId, ...]) -> None:
        await trio.sleep(0.5)
        show(roster)

    def watch(index: int, event: Event) -> None:
        if index == 0 and isinstance(event, RoundDone) and event.round == 2:
            trio.lowlevel.spawn_system_task(show_later, event.roster)

    config = {"genesis_size": 5, "validators": 0}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={Z: Withholding()}, watch=watch)
    outcome = await hostile.run()
    require_only_z_left(outcome)
    assert outcome.departures(DepartureKind.BAN)[Z].cause is Cause.EQUIVOCATION


async def test_a_member_one_round_behind_catches_up_before_anybody_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """The others have the next COMMITs and ban somebody while one member still waits for its CONFIRM."""
    victim = 2

    def delivery(sender: PeerId, receiver: PeerId, message: object) -> float:
        return 0.0 if hostile.peers[Z] in (sender, receiver) else 0.9

    class Selective(Conduct):
        """Does not send its CONFIRM of round 2 to the victim."""

        def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
            is_kept = is_due(message, Phase.CONFIRM) and message.slot.stage.round == 2
            return None if is_kept and recipient == hostile.peers[victim] else message.envelope

    async def show_later(roster: tuple[PeerId, ...]) -> None:
        await trio.sleep(0.1)
        stage = Stage(3, 0, Phase.CONFIRM)
        pair = [hostile.sign(Z, Roster(roster).digest, stage, Confirm(bytes([n]) * 32, ())) for n in (1, 2)]
        halt = Halt(Position(3, 0, int(Phase.COMMIT), 0), (), (encode(hostile.prove(*pair)),))
        hostile.tell(Z, hostile.sign(Z, Roster(roster).digest, Stage(0, 0, Phase.HALT, 0), halt))

    done: list[int] = []

    def watch(index: int, event: Event) -> None:
        close(index, event)
        if index not in (Z, victim) and isinstance(event, RoundDone) and event.round == 2:
            done.append(index)
            if len(done) == 3:
                trio.lowlevel.spawn_system_task(show_later, event.roster)

    config = {"genesis_size": 5, "validators": 0}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={Z: Selective()}, watch=watch)
    close = close_mouth(hostile)
    hostile.swarm.network.delivery = delivery
    outcome = await hostile.run()
    require_only_z_left(outcome)
    assert outcome.departures(DepartureKind.BAN)[Z].cause is Cause.EQUIVOCATION
