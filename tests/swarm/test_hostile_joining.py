"""Joining midway under attack: what comes of whoever misbehaves; honest strangers become members all the same."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.joining_scenes import MEMBERS, SECOND, STRANGER, Idle, build, find, play, require_sound

from btard.attacks import Equivocate, WrongAggregate
from btard.errors import NetworkError
from btard.identity import JoinTicket, PeerId
from btard.net import Hub, Loan
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import AnyPayload, Commit, Phase, Report, Stage
from btard.rules.roster import Roster
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Admitted, Departed, DisputeOpened, Promoted, RoundDone
from btard.swarm.frames import Kind, Receipt, SampleHead, UpdateHead
from btard.swarm.joining.ticket_desk import MAX_VAIN, VAIN_SECONDS, Reply
from btard.swarm.records import WorkRecord, decode_work
from btard.wire import decode, encode

QUICK = {"probation": 3, "rounds": 40}
LATER = {**QUICK, "rounds": 42}
"""Another run, with other draws: in the round of its entry a cheat validates."""
COMES_S = 3.0
EARLY_S = 2.0


def is_last_of_probation(swarm: SimulatedSwarm) -> bool:
    """Whether somebody is promoted by the round in progress."""
    rounds = swarm.outcomes[0].rounds
    return bool(rounds) and any(item.worked == QUICK["probation"] - 1 for item in rounds[-1].result.seal.candidates)


class SplitAtEntry(Equivocate):
    """Says two things in the CONFIRM of the round by which a stranger becomes a member."""

    swarm: SimulatedSwarm

    def __init__(self) -> None:
        super().__init__(1, phase=Phase.CONFIRM)

    def splits(self, stage: Stage) -> bool:
        """Whether this is that phase."""
        return stage.phase is Phase.CONFIRM and is_last_of_probation(self.swarm)


def test_split_at_an_entry_harms_nobody_but_its_author(tmp_path: Path) -> None:
    """The round by which a stranger becomes a member is run again with all; the stranger begins after that."""
    attack = SplitAtEntry()
    swarm = attack.swarm = build(tmp_path, {STRANGER: COMES_S}, {1: attack}, **QUICK)
    outcome = play(swarm)
    promoted = find(outcome, STRANGER, Promoted)
    assert len(promoted) == 1
    assert outcome.departures(DepartureKind.BAN).keys() == {1}
    assert {item.cause for item in find(outcome, 0, Departed)} == {Cause.EQUIVOCATION}
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert outcome.peers[STRANGER].rounds[0].round == promoted[0].round
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS
    require_sound(swarm, outcome)


class Meddler(Conduct):
    """Changes what leaves its hub, and says more."""

    async def accompany(self, hub: Hub) -> None:
        """Put ourselves before the hub."""
        send = hub.send

        def send_other(peer: PeerId, kind: int, head: bytes) -> None:
            other = self.change(peer, kind, head)
            if other is not None:
                send(peer, kind, other)

        hub.send = send_other  # type: ignore[method-assign]
        while True:
            await trio.sleep(0.1)
            self.say(hub)

    def change(self, peer: PeerId, kind: int, head: bytes) -> bytes | None:
        """Return what to send instead."""
        return head

    def say(self, hub: Hub) -> None:
        """Say more, ten times a second."""


class TwoFaced(Meddler):
    """A candidate that tells everybody another sample."""

    def change(self, peer: PeerId, kind: int, head: bytes) -> bytes | None:
        """Return a sample of the recipient's own."""
        if kind != Kind.SAMPLE:
            return head
        said: SampleHead = decode(head, SampleHead)
        return encode(replace(said, report=replace(said.report, norm=float(peer[0]))))


def test_candidate_that_tells_everybody_something_else_never_works(tmp_path: Path) -> None:
    """No sample of it is told by more than f members; it lapses, and nobody is blamed."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: TwoFaced()}, **QUICK)
    outcome = play(swarm)
    candidates = [item for event in outcome.peers[0].rounds for item in event.result.seal.candidates]
    assert candidates
    assert not any(item.worked for item in candidates)
    assert not find(outcome, 0, Departed)
    require_sound(swarm, outcome)


class Flooder(Meddler):
    """Says what means nothing to everybody, as a stranger and as a candidate."""

    def say(self, hub: Hub) -> None:
        """Send samples of no round and of no gradient, places, and bytes."""
        report = Report((0.0,) * 10, 1.0)
        bodies = [
            encode(SampleHead(10**9, 10**9, report)),
            encode(SampleHead(12, 2**62, report)),
            encode(SampleHead(12, 0, Report((math.nan,) * 10, math.inf))),
            encode(SampleHead(12, 0, Report((), 1.0))),
            b"\xff" * 70_000,
        ]
        for peer in sorted(hub.connected):
            for body in bodies:
                for kind in (Kind.SAMPLE, Kind.HANDOVER, Kind.UPDATE):
                    hub.send(peer, kind, body)


def test_flood_by_a_stranger_keeps_nobody_out(tmp_path: Path) -> None:
    """Its links end; the other stranger is promoted, and no round takes longer."""
    swarm = build(tmp_path, {STRANGER: COMES_S, SECOND: COMES_S}, {SECOND: Flooder()}, **QUICK)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    assert not outcome.departures(DepartureKind.BAN)
    times = sorted(event.wall_s for event in outcome.peers[0].rounds[2:])
    assert times[len(times) // 2] == pytest.approx(times[0], abs=0.01)
    require_sound(swarm, outcome)


class ShowsTickets(Meddler):
    """A stranger that asks for a place ten times a second, by tickets of a round that is not sealed yet."""

    def __init__(self) -> None:
        self.replies, self.cuts = Counter[tuple[PeerId, Reply]](), 0

    async def accompany(self, hub: Hub) -> None:
        """Ask all that there is a link to."""
        body = encode(JoinTicket(hub.me, 10**6, 7, 7))
        while True:
            await trio.sleep(0.1)
            for peer in sorted(hub.connected):
                try:
                    answer = await hub.request(peer, Kind.JOIN_TICKET, body, timeout_s=1.0)
                    self.replies[peer, Reply(decode(answer.head, Receipt).reply)] += 1
                except NetworkError:
                    self.cuts += not hub.is_connected(peer)


def test_tickets_without_end_keep_nobody_out(tmp_path: Path) -> None:
    """Each member bears a stated number of them and ends the link; the other stranger is promoted."""
    flooder = ShowsTickets()
    swarm = build(tmp_path, {STRANGER: COMES_S, SECOND: COMES_S}, {SECOND: flooder}, **QUICK)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    assert not outcome.departures(DepartureKind.BAN)
    assert {reply for _, reply in flooder.replies} == {Reply.FUTURE}
    assert flooder.replies.total() <= (MEMBERS + 1) * (MAX_VAIN + 2 + outcome.virtual_s // VAIN_SECONDS)
    assert sum(count >= MAX_VAIN for count in flooder.replies.values()) >= MEMBERS  # all but the other stranger
    assert flooder.cuts  # some by an answer that was lost with the link, others unseen: it was the last one
    require_sound(swarm, outcome)


class CallsFalse(Meddler):
    """A member to which no ticket is solved."""

    def __init__(self) -> None:
        self.seen = Counter[bytes]()

    def say(self, hub: Hub) -> None:
        """Answer for every ticket what costs whoever shows it again the link."""

        async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            self.seen[body] += 1
            return encode(Receipt(Reply.WORK)), None

        hub.serve[Kind.JOIN_TICKET] = refuse


def test_a_ticket_that_a_member_calls_false_is_not_shown_to_it_again(tmp_path: Path) -> None:
    """At an honest member, which found it false indeed, the third showing would end the link."""
    member = CallsFalse()
    swarm = build(tmp_path, {STRANGER: COMES_S, SECOND: COMES_S}, {1: member}, **QUICK, state_interval=16)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Admitted)
    assert find(outcome, SECOND, Admitted)  # an epoch later
    assert list(member.seen.values()) == [1, 1]


class ForgesPlaces(Meddler):
    """A member that hands over places that never were, and serves a wrong aggregate."""

    def __init__(self, stranger: PeerId) -> None:
        self._stranger, self._count = stranger, 0

    def change(self, peer: PeerId, kind: int, head: bytes) -> bytes | None:
        """Return one of many lies for a place."""
        if kind != Kind.HANDOVER:
            return head
        self._count += 1
        record = decode_work(head)
        members = record.roster
        lies: list[WorkRecord] = [
            replace(record, roster=members[::-1], newcomers=(self._stranger,)),
            replace(record, roster=tuple(sorted((*members, self._stranger))), newcomers=(self._stranger,)),
            replace(record, roster=(members[0],) * 3),
            replace(record, seal=replace(record.seal, run_id=bytes(32))),
            replace(record, attempt=2**60, banned=(self._stranger,) * 10_000),
            replace(record, checks=(), due=(), dismissed=(self._stranger,), roster=()),
        ]
        return encode(lies[self._count % len(lies)]) if self._count % 7 else b"\xc1" * 9

    def say(self, hub: Hub) -> None:
        """Serve zeros in place of every aggregate."""

        async def lie(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            await trio.lowlevel.checkpoint()
            return encode(UpdateHead(is_applied=True)), Loan(memoryview(bytes(4 * self.elements)), trio.CancelScope())

        hub.serve[Kind.UPDATE] = lie

    elements = 0


def test_forged_places_and_aggregates_lead_no_candidate_astray(tmp_path: Path) -> None:
    """What two of six hand over is not believed, and what they serve is not taken."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, None, **QUICK)
    liars = {index: ForgesPlaces(swarm.identities[STRANGER].peer_id) for index in (1, 2)}
    for liar in liars.values():
        liar.elements = swarm.config.elements
    swarm.conducts.update(liars)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    assert not find(outcome, 0, Departed)
    require_sound(swarm, outcome)


class QuotesFriends(Conduct):
    """A member that quotes tickets that nobody solved: of a friend, of members, of itself."""

    def __init__(self, keys: list[PeerId]) -> None:
        self._keys = keys

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return a COMMIT with them."""
        if not isinstance(payload, Commit):
            return payload
        tickets = tuple(JoinTicket(key, stage.round - 1, 7, 7) for key in self._keys)
        return replace(payload, quotes=replace(payload.quotes, tickets=tickets, charged=tuple(self._keys)))


def test_coalition_of_f_admits_nobody(tmp_path: Path) -> None:
    """Two of six quote the same unsolved tickets and charge whomever they like: nothing comes of it."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, None, **QUICK)
    friend, member, me = PeerId(bytes(31) + b"\x01"), swarm.identities[3].peer_id, swarm.identities[1].peer_id
    swarm.conducts.update({1: QuotesFriends([friend, member]), 2: QuotesFriends([friend, me])})
    outcome = play(swarm)
    seals = [event.result.seal for event in outcome.peers[0].rounds]
    known = {item.peer for seal in seals for item in seal.candidates}
    assert known == {swarm.identities[STRANGER].peer_id}
    assert find(outcome, STRANGER, Promoted)
    assert not find(outcome, 0, Departed)
    require_sound(swarm, outcome)


class SilentNewcomer(Conduct):
    """A newcomer that never says a word."""

    def says(self, stage: Stage) -> bool:
        """Say nothing."""
        return False


def test_silent_newcomer_is_removed_without_blame(tmp_path: Path) -> None:
    """The round in which it should begin goes on without it."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: SilentNewcomer()}, **QUICK)
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {STRANGER}
    assert not outcome.departures(DepartureKind.BAN)
    assert [event.round for event in outcome.peers[0].rounds] == list(range(1, QUICK["rounds"] + 1))
    require_sound(swarm, outcome)


@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.CONFIRM])
def test_newcomer_that_equivocates_at_once_is_banned(tmp_path: Path, phase: Phase) -> None:
    """Its first words are words like everybody's."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: Equivocate(1, phase=phase)}, **QUICK)
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    assert not outcome.departures(DepartureKind.REMOVAL)
    require_sound(swarm, outcome)


@pytest.mark.parametrize("restart_s", [None, 1.0])
def test_member_that_dies_as_a_newcomer_enters_keeps_nobody_out(tmp_path: Path, restart_s: float | None) -> None:
    """The newcomer is in all rounds from its first on, whether the other one comes back or not."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, None, **QUICK)

    def watch(index: int, event: Any) -> None:
        is_done = index == 2 and isinstance(event, RoundDone) and not swarm.outcomes[2].crashes
        if is_done and len(event.result.seal.roster) > MEMBERS:
            swarm.crash(2, restart_s)

    swarm._watch = watch
    outcome = play(swarm)
    first = find(outcome, STRANGER, Promoted)[0].round
    assert [event.round for event in outcome.peers[STRANGER].rounds] == list(range(first, QUICK["rounds"] + 1))
    assert outcome.departures(DepartureKind.REMOVAL).keys() == ({2} if restart_s is None else set())
    assert not outcome.departures(DepartureKind.BAN)
    require_sound(swarm, outcome)


def test_candidate_promoted_while_it_is_away_is_removed_without_blame(tmp_path: Path) -> None:
    """It said its last sample and died."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, None, **QUICK)

    def watch(index: int, event: Any) -> None:
        if index == 0 and isinstance(event, RoundDone) and len(event.result.seal.roster) > MEMBERS:
            swarm.crash(STRANGER)

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {STRANGER}
    assert not outcome.departures(DepartureKind.BAN)
    require_sound(swarm, outcome)


def test_restart_during_a_charge_costs_nobody_its_place(tmp_path: Path) -> None:
    """Whoever is back cannot redo what it does not remember, and says nothing; the others decide."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: Idle()}, **QUICK)

    def watch(index: int, event: Any) -> None:
        if index == 2 and isinstance(event, DisputeOpened) and not swarm.outcomes[2].crashes:
            assert event.kind == "sample"
            swarm.crash(2, 0.5)

    swarm._watch = watch
    outcome = play(swarm)
    assert find(outcome, STRANGER, Admitted)
    assert outcome.peers[2].restarts == 1
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    assert not outcome.departures(DepartureKind.REMOVAL)
    require_sound(swarm, outcome)


class AccusesAtEntry(Conduct):
    """A validator that accuses its target falsely in the round in which a stranger becomes a member."""

    swarm: SimulatedSwarm

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Find the target guilty in that round."""
        last = [event for outcome in self.swarm.outcomes for event in outcome.rounds[-1:]]
        return guilty or any(event.round == round_number and event.result.newcomers for event in last)


def test_false_accusation_at_an_entry_costs_the_accuser_its_place(tmp_path: Path) -> None:
    """Those decide who saw the round before; the newcomer comes in after that. Whoever was drawn is the cheat."""
    conduct = AccusesAtEntry()
    swarm = conduct.swarm = build(tmp_path, {STRANGER: COMES_S}, dict.fromkeys(range(1, MEMBERS), conduct), **LATER)
    outcome = play(swarm)
    promoted = find(outcome, STRANGER, Promoted)[0].round
    banned = [event for event in find(outcome, 0, Departed) if event.kind is DepartureKind.BAN]
    assert [(event.round, event.cause) for event in banned] == [(promoted, Cause.FALSE_ACCUSATION)]
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS
    require_sound(swarm, outcome)


def test_wrong_aggregate_of_a_newcomer_in_its_first_round_is_proven(tmp_path: Path) -> None:
    """It has said no COMMIT in that round, and is banned by a proof that every audit accepts (seed 90269)."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: WrongAggregate(1, seed=0)}, **QUICK)
    outcome = play(swarm)
    promoted = find(outcome, STRANGER, Promoted)[0].round
    banned = [event for event in find(outcome, 0, Departed) if event.kind is DepartureKind.BAN]
    assert [(event.round, event.cause) for event in banned] == [(promoted, Cause.WRONG_AGGREGATE)]
    require_sound(swarm, outcome)


def test_stranger_that_comes_with_the_genesis_becomes_a_member(tmp_path: Path) -> None:
    """Before the first round is sealed there is no snapshot, and x_0 is everybody's."""
    swarm = build(tmp_path, {STRANGER: EARLY_S}, None, **QUICK)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)
