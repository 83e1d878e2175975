"""When marks begin to count: at the same place for members that are a phase apart."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.rules.build import make_config, make_roster
from tests.swarm.restarts import kill_after

from btard.identity import PeerId
from btard.rules.disputes import Dispute, DisputeKind
from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Phase, SignedMessage, Stage, Transcript
from btard.rules.seal import Seal, SealSignature
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.power import PowerLoss
from btard.swarm.broadcast import Broadcast
from btard.swarm.exchange import Exchange
from btard.swarm.records import decode_work, encode_place, encode_work, open_state, open_work
from btard.swarm.restoring import Start, restore
from btard.swarm.state import State, Work, empty_part

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
PAIR, OTHER = make_pair(A, B), make_pair(C, D)
CONFIG, OPTIMIZER = make_config(), LinearTask().initial_optimizer()


def make_work(number: int, previous: Work | None = None) -> Work:
    """The work on a round that starts with what the one before hands on."""
    seal = Seal(bytes(32), number - 1, 0, bytes(32), bytes(32), b"", ROSTER.members, (), bytes(32), b"q" * 32, 5)
    marks = previous.next_marks if previous else Marks()
    state = State(number, 0, ROSTER, empty_part(), OPTIMIZER, seal, b"", b"", marks=marks)
    return Work(CONFIG, state, previous)


def test_recoveries_mark_from_the_next_round_on() -> None:
    """In the round that is resumed slices still go the way on which they were sent."""
    work = make_work(3)
    work.mark(frozenset({PAIR}), 3)
    assert work.marks == Marks()
    assert make_work(4, work).marks == Marks().with_pairs([PAIR])


def test_member_that_is_already_in_the_next_round_marks_at_once() -> None:
    """It is in COMMIT there; and should the round before be redone, its end will know the pair too."""
    before = make_work(3)
    ahead = make_work(4, before)
    ahead.mark(frozenset({PAIR}), 3)
    assert ahead.marks == Marks().with_pairs([PAIR])
    assert before.marks == Marks()
    assert make_work(4, before).marks == Marks().with_pairs([PAIR])


def test_marks_of_gather_are_void_with_their_attempt() -> None:
    """Some members may have settled the complaint when the attempt ended, and others not."""
    work = make_work(3)
    work.gathered = frozenset({PAIR})
    work.mark(frozenset({OTHER}), 3)
    assert work.next_marks == Marks().with_pairs([PAIR, OTHER])
    work.begin_attempt(ROSTER.without([E]), frozenset(), 1, b"")
    assert work.next_marks == Marks().with_pairs([OTHER])


def test_members_in_different_places_judge_halts_by_the_same_marks() -> None:
    """Neither a gather that some have settled divides them, nor the turn of the round; a settlement tells all."""
    behind, ahead = make_work(3), make_work(3)
    ahead.gathered = frozenset({PAIR})
    after = make_work(4, ahead)
    assert PAIR in after.marks.pairs
    for work in (behind, ahead, after):
        work.share(frozenset({OTHER}))
    assert behind.common == ahead.common == after.common == Marks().with_pairs([OTHER])


def test_an_attempt_begins_with_the_pairs_that_settlements_before_it_marked() -> None:
    """Those that wait for their round are common knowledge; a gather of the attempt that ended is void."""
    work = make_work(3)
    work.gathered = frozenset({make_pair(D, E)})
    work.mark(frozenset({PAIR}), 3)
    work.mark(frozenset({OTHER}), 4)
    work.begin_attempt(ROSTER, frozenset(), 1, b"")
    assert work.common == Marks().with_pairs([PAIR, OTHER])


@pytest.mark.parametrize("back", ["restarted", "newcomer"])
def test_members_without_a_round_before_judge_halts_as_the_others_do(back: str) -> None:
    """What all have in common is in the record from which a peer restarts, and which a newcomer is handed."""
    before = make_work(3)
    before.gathered = frozenset({PAIR})
    work = make_work(4, before)
    work.share(frozenset({OTHER}))
    if back == "newcomer":
        work.begin_attempt(ROSTER, frozenset(), 1, b"")
    record = decode_work(encode_work(work, 0))
    again = open_work(CONFIG, record, open_state(record, empty_part(), OPTIMIZER), None)
    assert again.common == work.common
    assert again.common.pairs == {"restarted": {OTHER}, "newcomer": {PAIR}}[back]


def test_all_members_write_the_same_place() -> None:
    """Settled disputes are a set, whose order is another in every process; what a newcomer is handed is not."""
    work = make_work(3)
    disputes = [Dispute(DisputeKind.GRADIENT, 2, peer, None, None) for peer in (A, B, C)]
    said = set()
    for order in permutations(disputes):
        work.settled = dict.fromkeys(order)  # type: ignore[assignment]
        said.add(encode_work(work, 0))
    assert len(said) == 1


def test_a_newcomer_is_told_the_same_place_by_members_that_were_a_phase_apart() -> None:
    """Of a recovery some heard in the last phase of a round, and others in the first of the next: all mark alike."""
    told = set()
    for has_gone_on in (False, True):
        before = make_work(2)
        if not has_gone_on:
            before.mark(frozenset({PAIR}), 2)
        work = make_work(3, before)
        if has_gone_on:
            work.mark(frozenset({PAIR}), 2)
        work.share(frozenset({PAIR}))
        work.begin_attempt(ROSTER, frozenset(), 1, b"")
        told.add(encode_place(work))
    assert len(told) == 1
    assert decode_work(told.pop()).marks == ((A, B),)


def test_a_newcomer_is_told_the_same_place_whoever_heard_a_member_that_was_removed() -> None:
    """It said its COMMIT to one alone, who sealed the round before in the first attempt, and the others in the next."""
    told = set()
    for heard in (ROSTER.members, ROSTER.members[1:]):
        work = make_work(3, make_work(2))
        work.sealed, work.signatures = True, tuple(SealSignature(peer, bytes(64)) for peer in heard)
        work.forget_signatures({A})
        work.begin_attempt(ROSTER.without([A]), frozenset(), 1, b"")
        told.add(encode_place(work))
    assert len(told) == 1
    assert len(decode_work(told.pop()).signatures) == 4


def test_no_seal_loses_its_majority_by_removals() -> None:
    """Whoever holds enough signatures keeps them, where without those of the removed they would be too few."""
    work = make_work(3, make_work(2))
    work.signatures = tuple(SealSignature(peer, bytes(64)) for peer in ROSTER.members)
    for peers, left in (({A, B}, 3), ({C}, 3)):
        work.forget_signatures(peers)
        assert len(work.signatures) == left


def test_marks_end_with_their_members() -> None:
    """When one of a pair leaves, nothing is left to be kept apart."""
    work = make_work(3)
    work.marks = Marks().with_pairs([PAIR, OTHER])
    work.begin_attempt(ROSTER.without([A]), frozenset(), 1, b"")
    assert work.marks == Marks().with_pairs([OTHER])
    assert work.relays.between(A, B) is None
    assert work.relays.between(C, D) in {B, E}


def test_marks_of_a_round_to_come_wait_for_it() -> None:
    """Whoever is a round behind hands them on, after a restart as well, and even if the round before is redone."""
    work = make_work(3)
    work.mark(frozenset({PAIR}), 4)
    record = decode_work(encode_work(work, 0))
    again = open_work(CONFIG, record, open_state(record, empty_part(), OPTIMIZER), None)
    assert again.next_marks == Marks()
    after = make_work(4, again)
    assert (after.marks, after.next_marks) == (Marks(), Marks().with_pairs([PAIR]))
    before = after.reopen_previous()
    assert before is again
    assert make_work(4, before).next_marks == Marks().with_pairs([PAIR])


async def test_a_crash_between_a_recovery_and_its_round_loses_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A member that dies in the round before the one that a recovery resumes comes back with the pairs it marked."""
    settings = {"tau": 2.0, "delta": 20.0, "rounds": 4, "genesis_size": 5, "validators": 0}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path)
    peers = [identity.peer_id for identity in swarm.identities]
    pair, told, victim = make_pair(peers[0], peers[1]), set[PeerId](), peers[2]
    run, say = Exchange.run, Broadcast.say

    async def run_marking(exchange: Exchange, work: Work, phase: Phase, *args: Any, **options: Any) -> Transcript:
        me = exchange._broadcast.me
        if (work.round, phase) == (2, Phase.CONFIRM) and me not in told:  # once in a life: no restart repeats it
            told.add(me)
            work.mark(frozenset({pair}), 3)
        return await run(exchange, work, phase, *args, **options)

    def say_and_die(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
        is_new = broadcast.find_said(stage) is None
        message = say(broadcast, stage, *args)
        if broadcast.me == victim and is_new and (stage.round, stage.phase) == (2, Phase.CONFIRM):
            swarm.crash(2, 1.5)
            raise PowerLoss
        return message

    monkeypatch.setattr(Exchange, "run", run_marking)
    monkeypatch.setattr(Broadcast, "say", say_and_die)
    outcome = await swarm.run()
    assert [(peer.error, peer.restarts) for peer in outcome.peers] == [
        (None, int(peer.peer == victim)) for peer in outcome.peers
    ]
    marked = [(done.round, pair in done.result.marks.pairs) for peer in outcome.peers for done in peer.rounds]
    assert set(marked) == {(1, False), (2, False), (3, True), (4, True)}


async def test_a_crash_past_the_next_commit_loses_no_mark_of_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Should that round be run again, whoever was started again gives slices the way that all others do."""
    settings = {"tau": 2.0, "delta": 20.0, "rounds": 4, "genesis_size": 5, "validators": 0}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path)
    peers = [identity.peer_id for identity in swarm.identities]
    pair, told, found = make_pair(peers[0], peers[1]), set[PeerId](), list[tuple[int, Marks, Marks]]()
    run = Exchange.run

    async def run_marking(exchange: Exchange, work: Work, phase: Phase, *args: Any, **options: Any) -> Transcript:
        transcript = await run(exchange, work, phase, *args, **options)
        me = exchange._broadcast.me
        if (work.round, phase) == (2, Phase.CONFIRM) and me not in told:  # nothing more is signed in this round
            told.add(me)
            work.mark(frozenset({pair}), 2)
        return transcript

    def restore_and_keep(*args: Any) -> Start | None:
        start = restore(*args)
        if start is not None and start.work.previous is not None:
            found.append((start.work.round, start.work.marks, start.work.previous.next_marks))
        return start

    monkeypatch.setattr(Exchange, "run", run_marking)
    monkeypatch.setattr("btard.swarm.peer.restore", restore_and_keep)
    kill_after(swarm, 2, Phase.AGGREGATE, 3, back_s=1.5)
    outcome = await swarm.run()
    assert [peer.error for peer in outcome.peers] == [None] * 5
    marks = Marks().with_pairs([pair])
    assert found == [(3, marks, marks)]
