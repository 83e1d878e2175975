"""Data that is kept back, complained about or not there at all must cost no honest member its place."""

from pathlib import Path

import pytest
import torch
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from torch import Tensor

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Check, Commit, Report, Reveal, Stage
from btard.sim import LinearTask, Outcome
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone, RunStarted
from btard.swarm.frames import Kind

Clock = trio.testing.MockClock
SMALL = {"genesis_size": 7, "chunk_size": 64, "rounds": 7}
"""Four chunks for seven members: three parts are empty."""
Z = 1


def require_honest_stay(outcome: Outcome, rounds: int = 3) -> None:
    """No honest member left, all finished, with one state."""
    assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
    gone = {**outcome.departures(DepartureKind.BAN), **outcome.departures(DepartureKind.REMOVAL)}
    assert set(gone) <= outcome.byzantine
    assert {len({done.round for done in peer.rounds}) for peer in outcome.honest} == {rounds}
    assert len(outcome.state_roots) == 1


@pytest.mark.parametrize("lie", ["none", "scatter", "gather", "report"])
async def test_empty_parts_are_nothing_to_quarrel_about(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Where there are fewer chunks than members, complaints and lies about empty parts harm nobody but liars."""

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if index != Z or stage.round < 2:
            return payload
        if lie == "scatter" and isinstance(payload, Aggregate):
            return replace(payload, root=b"", norm=float("nan"), missing=(hostile.peers[3],))
        if lie == "gather" and isinstance(payload, Reveal):
            return replace(payload, missing=tuple(range(7)))
        if lie == "report" and isinstance(payload, Check) and payload.reports:
            return replace(payload, reports=tuple(Report((1.0,) * 10, 1.0) for _ in payload.reports))
        return payload

    hostile = HostileSwarm(monkeypatch, tmp_path, SMALL, conducts={Z: Conduct()})
    alter_said(monkeypatch, hostile, change)
    require_honest_stay(await hostile.run(), rounds=7)


class Selective(Conduct):
    """Keeps its slices and parts from one member, from round 2 on, whatever it is asked."""

    def __init__(self, victim: PeerId) -> None:
        self._victim = victim

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for the victim."""
        return round_number < 2 or recipient != self._victim

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for the victim."""
        return round_number < 2 or recipient != self._victim


async def test_a_slice_published_to_all_but_one_is_had_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Who lacks an attested slice gets it from whoever attests, and does not have to complain twice."""
    victim = 2

    def delivery(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        from_z = sender == hostile.peers[Z] and message.payload is not None and message.kind == Kind.SLICE
        deprived = [victim, *[index for index in hostile.successors(victim) if index != Z][:3]]
        return None if from_z and receiver in {hostile.peers[index] for index in deprived} else 0.0

    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 9, "validators": 0}, conducts={Z: Conduct()})
    hostile.swarm.conducts[Z] = Selective(hostile.peers[victim])
    hostile.swarm.network.delivery = delivery
    require_honest_stay(await hostile.run())


async def test_parts_kept_back_by_several_do_not_make_their_victim_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Three members keep their parts from one and answer none of its questions: it has them in time all the same."""
    victim = 2

    def watch(index: int, event: Event) -> None:
        if index in byzantine and isinstance(event, RunStarted):

            async def be_silent(peer: PeerId, body: bytes) -> tuple[bytes, None]:
                await trio.sleep_forever()

            hub = hostile.hubs[hostile.peers[index]]
            hub.serve[Kind.PULL_PART] = be_silent

    config = {"genesis_size": 7, "validators": 0, "delay_s": 1.0}
    byzantine: list[int] = []
    hostile = HostileSwarm(monkeypatch, tmp_path, config, watch=watch)
    byzantine += hostile.successors(victim)[:3]
    hostile.swarm.conducts.update({index: Selective(hostile.peers[victim]) for index in byzantine})
    require_honest_stay(await hostile.run())


async def test_a_round_without_contributors_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Both contributors of a round vanish and two validators remain: the round ends without an update."""
    chosen: list[int] = []
    states: dict[int, set[bytes]] = {1: set(), 2: set()}

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == 1 and not chosen:
            chosen.extend(hostile.peers.index(pair.target) for pair in event.assignments)
        if isinstance(event, RoundDone) and event.round in states:
            states[event.round].add(event.result.seal.state)

    config = {"genesis_size": 4, "validators": 2, "max_byzantine": 0, "min_roster": 1}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, watch=watch)

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if isinstance(payload, Commit) and stage.round == 2 and index in chosen:
            return replace(payload, root=b"", goodbye=True)
        return payload

    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers if peer.index not in chosen] == [None] * 2
    assert len(states[1]) == 1
    assert states[2] == states[1]


@pytest.mark.parametrize("size", [4, 5])
async def test_goodbyes_of_many_at_once_leave_a_majority(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """All but two say goodbye in the same round: they go one after another, and the others go on."""
    leave_after = dict.fromkeys(range(2, size), 1)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": size, "rounds": 6}, leave_after=leave_after)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * size
    assert len(outcome.peers[0].rounds) == 6


class Overflowing(LinearTask):
    """A task whose gradients are too large, for some or for all minibatches."""

    share = 256

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return infinity where the seed says so."""
        values = super().gradient(parameters, seed)
        return torch.full_like(values, float("inf")) if seed[0] < self.share else values


@pytest.mark.parametrize("share", [256, 128])
async def test_gradients_that_overflow_are_nobodys_crime(
    share: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Where minibatches overflow at all or at some peers the run goes on, and nobody leaves."""
    monkeypatch.setattr(Overflowing, "share", share)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 5}, make_workload=Overflowing)
    require_honest_stay(await hostile.run())
