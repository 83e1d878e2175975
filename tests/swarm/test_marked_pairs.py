"""Complaints that nobody can decide mark the pair, once: they cost neither honest members nor round after round."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.marks import Marks
from btard.rules.messages import Aggregate, AnyPayload, Phase, Reveal, Stage
from btard.sim import Outcome
from btard.swarm import aggregation
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.events import RoundDone
from btard.swarm.frames import SliceRequest
from btard.swarm.relaying import scatter_to_relays
from btard.swarm.scatter import Slices
from btard.swarm.services import Services
from btard.swarm.state import Work
from btard.wire import decode

Clock = trio.testing.MockClock
ROUNDS = 7
CONFIG: Mapping[str, object] = {"genesis_size": 8, "rounds": ROUNDS, "validators": 0}
"""Eight members bear three Byzantine ones."""
LONG = {**CONFIG, "rounds": 12}


def require_sound(outcome: Outcome, directory: Path, rounds: int = ROUNDS) -> None:
    """No honest member left, all finished all rounds with one state and the same marks, every ledger audits."""
    gone = {**outcome.departures(DepartureKind.BAN), **outcome.departures(DepartureKind.REMOVAL)}
    assert set(gone) <= outcome.byzantine
    assert len(outcome.state_roots) == 1
    for peer in outcome.honest:
        assert peer.error is None
        assert {done.round for done in peer.rounds} == set(range(1, rounds + 1))
        assert audit_ledger(directory / f"peer-{peer.index}").problems == ()
    histories = [[done.result.marks for done in peer.rounds] for peer in outcome.honest]
    assert all(history == histories[0] for history in histories)


def count_redos(outcome: Outcome) -> int:
    """New attempts in the whole run, as the first honest member saw them."""
    return sum(done.attempts - 1 for done in outcome.honest[0].rounds)


def read_marks(outcome: Outcome) -> dict[int, Marks]:
    """The marked pairs after each round."""
    return {done.round: done.result.marks for done in outcome.honest[0].rounds}


def name_pairs(hostile: HostileSwarm, marks: Marks) -> set[frozenset[int]]:
    """The marked pairs as indices of peers."""
    return {frozenset(map(hostile.peers.index, pair)) for pair in marks.pairs}


def complain(payload: AnyPayload, missing: list[PeerId]) -> AnyPayload:
    """An AGGREGATE that lacks these slices."""
    assert isinstance(payload, Aggregate)
    return replace(payload, root=b"", norm=0.0, missing=tuple(sorted(missing)))


# --- false complaints ---


@pytest.mark.parametrize("liars", [(5,), (2, 5, 7)], ids=["one", "three"])
async def test_complaints_about_everyone_cost_their_author_its_place_at_once(
    liars: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """One redo for the publications, one for the removal; the remaining rounds run undisturbed."""

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if index not in liars or not isinstance(payload, Aggregate):
            return payload
        return complain(payload, [peer for peer in hostile.peers if peer != hostile.peers[index]])

    hostile = HostileSwarm(monkeypatch, tmp_path, LONG, conducts={index: Conduct() for index in liars})
    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    require_sound(outcome, tmp_path, rounds=12)
    removals = outcome.departures(DepartureKind.REMOVAL)
    assert set(removals) == set(liars)
    assert {(event.round, event.cause) for event in removals.values()} == {(1, Cause.TOO_MANY_MARKS)}
    assert count_redos(outcome) == 2
    assert read_marks(outcome)[1] == Marks()


@pytest.mark.parametrize("liars", [(5,), (2, 5, 7)], ids=["one", "three"])
async def test_complaints_one_at_a_time_are_bounded_for_the_whole_run(
    liars: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Who complains about the same member in every round complains about relays from then on, and runs out of them."""
    victim = 0

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if index in liars and isinstance(payload, Aggregate):
            return complain(payload, [hostile.peers[victim]])
        return payload

    hostile = HostileSwarm(monkeypatch, tmp_path, LONG, conducts={index: Conduct() for index in liars})
    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    require_sound(outcome, tmp_path, rounds=12)
    removals = outcome.departures(DepartureKind.REMOVAL)
    assert {event.cause for event in removals.values()} == {Cause.TOO_MANY_MARKS}
    assert set(removals) == set(liars)
    assert count_redos(outcome) <= len(liars) * (3 + 1) + len(liars)


async def test_complainer_that_stops_in_time_stays_and_costs_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Three complaints about three members are all that f = 3 allows; their pairs go on through relays."""
    liar, victims = 5, (0, 1, 2)

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        is_first = (stage.round, stage.attempt) == (stage.round, stage.round - 2)
        if index == liar and isinstance(payload, Aggregate) and is_first and 2 <= stage.round < 5:
            return complain(payload, [hostile.peers[victims[stage.round - 2]]])
        return payload

    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={liar: Conduct()})
    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    assert count_redos(outcome) == 3
    assert name_pairs(hostile, read_marks(outcome)[ROUNDS]) == {frozenset({liar, victim}) for victim in victims}


async def test_complaints_about_all_aggregates_leave_the_draw_and_cost_their_author_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """At gather nothing is redone: the round ends as it would have, and the next one begins without the complainer."""
    liar = 5

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if index == liar and isinstance(payload, Reveal) and stage.round >= 3:
            return replace(payload, missing=tuple(range(8)))
        return payload

    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={liar: Conduct()})
    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    (removed,) = outcome.departures(DepartureKind.REMOVAL).values()
    assert (removed.round, removed.cause) == (4, Cause.TOO_MANY_MARKS)
    attempts = {done.round: done.attempts for done in outcome.honest[0].rounds}
    assert attempts == {number: 1 + (number == 4) for number in range(1, ROUNDS + 1)}


# --- data kept back ---


class KeepsBack(Conduct):
    """Keeps its slices and parts from some, from round 2 on, but publishes when somebody complains."""

    def __init__(self, victims: frozenset[PeerId] = frozenset()) -> None:
        self.victims = victims

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for a victim."""
        return round_number < 2 or recipient not in self.victims

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for a victim."""
        return round_number < 2 or recipient not in self.victims


async def test_slices_kept_from_one_victim_reach_it_through_relays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """The pair is marked in the first round that it fails; no later round is redone, and nobody leaves."""
    cheat, victim = 5, 2
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={cheat: KeepsBack()})
    hostile.swarm.conducts[cheat] = KeepsBack(frozenset({hostile.peers[victim]}))
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    assert {done.round: done.attempts for done in outcome.honest[0].rounds if done.attempts > 1} == {2: 2}
    marks = read_marks(outcome)
    assert marks[1] == Marks()
    for number in range(2, ROUNDS + 1):
        assert name_pairs(hostile, marks[number]) == {frozenset({cheat, victim})}
    durations = {done.round: done.wall_s for done in outcome.honest[0].rounds}
    assert max(durations[number] for number in range(3, ROUNDS + 1)) <= durations[1]


async def test_slices_kept_from_many_cost_their_owner_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Who fails four members has four marked partners, whatever it publishes afterwards."""
    cheat = 5
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={cheat: KeepsBack()})
    hostile.swarm.conducts[cheat] = KeepsBack(frozenset(hostile.peers[:4]))
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    (removed,) = outcome.departures(DepartureKind.REMOVAL).values()
    assert (removed.round, removed.cause) == (2, Cause.TOO_MANY_MARKS)
    assert count_redos(outcome) == 2


async def test_part_kept_from_one_victim_is_had_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """An aggregate that the others hold needs no complaint: nobody is marked and nothing is redone."""
    cheat, victim = 5, 2

    class KeepsPart(KeepsBack):
        def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
            return True

    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={cheat: Conduct()})
    hostile.swarm.conducts[cheat] = KeepsPart(frozenset({hostile.peers[victim]}))
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    assert count_redos(outcome) == 0
    assert read_marks(outcome)[ROUNDS] == Marks()


async def test_relay_that_passes_nothing_on_is_marked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Two cheats keep slices and errands from one victim: both are marked with it, and it gets everything."""
    cheats, victim = (4, 5), 2
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts=dict.fromkeys(cheats, Conduct()))
    for cheat in cheats:
        hostile.swarm.conducts[cheat] = KeepsBack(frozenset({hostile.peers[victim]}))
    outcome = await hostile.run()
    require_sound(outcome, tmp_path)
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    assert name_pairs(hostile, read_marks(outcome)[ROUNDS]) == {frozenset({cheat, victim}) for cheat in cheats}
    assert count_redos(outcome) == 1


async def test_relay_that_claims_to_deliver_is_marked_with_the_victim_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A second cheat swallows what it is to pass on: once, then it is no relay for this victim any more."""
    cheat, relay, victim = 5, 1, 2
    forward, serve = Slices.forward, Slices._serve

    def swallows(slices: Slices, to: PeerId, root: bytes) -> bool:
        is_own = any(key[1] == root for key in slices._own)
        return slices._hub.me == hostile.peers[relay] and to == hostile.peers[victim] and not is_own

    def forward_not(self: Slices, number: int, root: bytes, chunks: range, peer: PeerId) -> None:
        if not swallows(self, peer, root):
            forward(self, number, root, chunks, peer)

    async def serve_not(self: Slices, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        return (b"", None) if swallows(self, peer, decode(body, SliceRequest).root) else await serve(self, peer, body)

    monkeypatch.setattr(Slices, "forward", forward_not)
    monkeypatch.setattr(Slices, "_serve", serve_not)
    longer = {**CONFIG, "rounds": 40}  # long enough for the draw to make the second cheat a relay of this pair
    hostile = HostileSwarm(monkeypatch, tmp_path, longer, conducts={cheat: Conduct(), relay: Conduct()})
    hostile.swarm.conducts[cheat] = KeepsBack(frozenset({hostile.peers[victim]}))
    outcome = await hostile.run()
    require_sound(outcome, tmp_path, rounds=40)
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    assert name_pairs(hostile, read_marks(outcome)[40]) == {frozenset({cheat, victim}), frozenset({relay, victim})}
    assert count_redos(outcome) == 2


async def test_relay_that_gets_its_slice_at_the_last_moment_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """All messages take nearly Δ, and a cheat gives relays its slice only when they ask: no honest pair is marked."""
    cheat, victim = 5, 2

    def scatter_not(services: Services, work: Work) -> None:
        if services.me != hostile.peers[cheat]:
            scatter_to_relays(services, work)

    monkeypatch.setattr(aggregation, "scatter_to_relays", scatter_not)
    hostile = HostileSwarm(monkeypatch, tmp_path, {**CONFIG, "rounds": 4}, conducts={cheat: Conduct()})
    hostile.swarm.conducts[cheat] = KeepsBack(frozenset({hostile.peers[victim]}))
    hostile.swarm.network.delivery = lambda *message: 0.95 * hostile.config.delay_s
    outcome = await hostile.run()
    require_sound(outcome, tmp_path, rounds=4)
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    assert name_pairs(hostile, read_marks(outcome)[4]) == {frozenset({cheat, victim})}
    assert count_redos(outcome) == 1


# --- how long marks last ---


async def test_marks_outlive_attempts_and_rounds_but_not_their_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A pair is marked in round 2, another member leaves in COMMIT of round 4, one of the pair in that of round 6."""
    cheat, victim, bystander = 5, 2, 6
    leave_after = {bystander: 2, cheat: 4}
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={cheat: Conduct()}, leave_after=leave_after)
    hostile.swarm.conducts[cheat] = KeepsBack(frozenset({hostile.peers[victim]}))
    outcome = await hostile.run()
    marks = {done.round: name_pairs(hostile, done.result.marks) for done in outcome.peers[0].rounds}
    pair = frozenset({cheat, victim})
    assert marks == {number: {pair} if 2 <= number <= 5 else set() for number in range(1, ROUNDS + 1)}
    attempts: dict[int, int] = {done.round: done.attempts for done in outcome.peers[0].rounds if done.attempts > 1}
    assert attempts == {2: 2, 4: 2, 6: 2}
    assert [peer.error for peer in outcome.peers] == [None] * 8


async def test_rounds_without_complaints_send_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Where nobody complains there are five messages of each member a round, and nobody waits for a relay."""
    said: list[Stage] = []

    def change(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        said.append(stage)
        return payload

    hostile = HostileSwarm(monkeypatch, tmp_path, {**CONFIG, "rounds": 3})
    alter_said(monkeypatch, hostile, change)
    outcome = await hostile.run()
    assert len(outcome.state_roots) == 1
    assert sum(0 < stage.round <= 3 for stage in said) == 8 * 3 * 5
    assert Counter(stage.phase for stage in said if stage.round == 0) == {Phase.VIEW: 8, Phase.BALLOT: 8}  # at the end
    assert all(isinstance(done, RoundDone) and done.attempts == 1 for done in outcome.peers[0].rounds)
