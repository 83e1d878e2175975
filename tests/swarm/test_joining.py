"""Strangers join a run that has begun: what comes of the honest, the idle, the slow, the slandered and the killed."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.swarm.joining_scenes import (
    COMES_S,
    MEMBERS,
    SECOND,
    SETTINGS,
    STRANGER,
    Idle,
    build,
    find,
    play,
    require_sound,
)

from btard.attacks import CloseTheDoor, OverlookCandidates, SlanderCandidates
from btard.errors import Banned, Refused, Removed
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.seal import Seal
from btard.swarm.events import Admitted, Departed, Promoted, RoundDone, Sampled
from btard.swarm.joining.hearing_seals import HEARD_FILE, read_heard
from btard.swarm.joining.stranger import Stranger
from btard.swarm.ledger import Ledger

EPOCH = 32


def test_stranger_becomes_a_member_and_ends_with_the_state_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticket, which is spent, admission, probation, state and promotion: from then on it is in every round."""
    spent = Counter[type]()
    monkeypatch.setattr(Stranger, "spend_ticket", lambda stranger: spent.update([type(stranger)]))
    swarm = build(tmp_path, {STRANGER: COMES_S})
    outcome = play(swarm)
    admitted, promoted = find(outcome, STRANGER, Admitted), find(outcome, STRANGER, Promoted)
    assert len(admitted) == len(promoted) == spent[Stranger] == 1
    assert promoted[0].round - admitted[0].round > SETTINGS["probation"]
    rounds = [event.round for event in outcome.peers[STRANGER].rounds]
    assert rounds == list(range(promoted[0].round, 41))
    assert all(len(event.roster) == MEMBERS + 1 for event in outcome.peers[0].rounds[rounds[0] :])
    assert not outcome.departures(DepartureKind.BAN)
    assert not outcome.departures(DepartureKind.REMOVAL)
    require_sound(swarm, outcome)


def test_candidate_writes_down_how_the_run_stands_until_it_is_a_member(tmp_path: Path) -> None:
    """Its status shows each round of its probation, by a seal in its directory, and that its ticket got it a place."""
    heard: list[tuple[int, Seal]] = []

    def watch(index: int, event: object) -> None:
        if index == STRANGER and isinstance(event, Sampled):
            seal = read_heard(swarm.data_dir(STRANGER), swarm.config.run_id)
            assert seal is not None
            heard.append((event.round, seal))
            (candidate,) = (item for item in seal.candidates if item.peer == swarm.identities[STRANGER].peer_id)
            assert candidate.worked == event.worked

    swarm = build(tmp_path, {STRANGER: COMES_S})
    swarm._watch = watch
    outcome = play(swarm)
    assert len(heard) >= SETTINGS["probation"]
    assert all(seal.round == number - 1 for number, seal in heard)
    assert find(outcome, STRANGER, Promoted)
    assert not (swarm.data_dir(STRANGER) / HEARD_FILE).exists()


def test_newcomer_can_tell_those_after_it_how_the_run_came_about(tmp_path: Path) -> None:
    """Its ledger begins midway, and holds the line from the genesis on: signed seals without a gap that matters."""
    swarm = build(tmp_path, {STRANGER: COMES_S})
    outcome = play(swarm)
    first = find(outcome, STRANGER, Promoted)[0].round - 1
    with Ledger.create(swarm.data_dir(STRANGER), swarm.config, swarm.identities[STRANGER].peer_id) as ledger:
        told = list(ledger.signed_seals_from(0, 99))
        assert told[0].round == 0
        assert [item.signer for item in ledger.signatures(0)] == [swarm.config.founder_id]
        assert all(len(ledger.signatures(seal.round)) > MEMBERS // 2 for seal in told[1:])
        assert [seal.round for seal in told if seal.round >= first] == list(range(first, 41))
        assert next(ledger.seals()).round == first


def test_newcomer_contributes_validates_and_is_validated(tmp_path: Path) -> None:
    """After its first round it is a member like all others."""
    outcome = play(build(tmp_path, {STRANGER: COMES_S}, rounds=80))
    newcomer = outcome.peers[STRANGER]
    pairs = [pair for event in newcomer.rounds for pair in event.assignments]
    assert newcomer.peer in {pair.validator for pair in pairs}
    assert newcomer.peer in {pair.target for pair in pairs}


def test_no_round_waits_for_a_stranger(tmp_path: Path) -> None:
    """Its entry costs one round a handover and an aggregate, three messages in a row; nothing else costs anything."""
    outcome = play(build(tmp_path, {STRANGER: COMES_S}))
    times = sorted(event.wall_s for event in outcome.peers[0].rounds[2:])
    assert times[-2] == pytest.approx(times[0], abs=0.01)
    assert times[-1] <= times[0] + 3 * 0.05 + 0.01


def test_strangers_come_one_after_another(tmp_path: Path) -> None:
    """An epoch admits one, and each finds the ones before it in the roster."""
    swarm = build(tmp_path, {STRANGER: COMES_S, SECOND: COMES_S}, rounds=60)
    outcome = play(swarm)
    first, second = (find(outcome, index, Admitted)[0].round for index in (STRANGER, SECOND))
    assert first // SETTINGS["state_interval"] != second // SETTINGS["state_interval"]
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS + 2
    require_sound(swarm, outcome)


def test_idle_candidate_is_banned_and_told_so(tmp_path: Path) -> None:
    """Whoever skips the gradients is charged by the first honest checker, and everybody finds the same."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: Idle()})
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    assert {event.cause for event in find(outcome, 0, Departed)} == {Cause.FALSE_GRADIENT}
    assert isinstance(outcome.peers[STRANGER].error, Banned)
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS
    require_sound(swarm, outcome)


def test_slanderer_loses_its_own_place(tmp_path: Path) -> None:
    """A charge that more than half find untrue is a false accusation; the candidate goes on."""
    swarm = build(
        tmp_path, {STRANGER: COMES_S}, {1: SlanderCandidates(1), 2: SlanderCandidates(1)}, probation=12, rounds=60
    )
    outcome = play(swarm)
    banned = outcome.departures(DepartureKind.BAN)
    assert banned
    assert banned.keys() <= {1, 2}
    assert {event.cause for event in banned.values()} == {Cause.FALSE_ACCUSATION}
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)


def test_cheats_among_the_members_cannot_cover_an_idle_candidate(tmp_path: Path) -> None:
    """Two of six say nothing when they are drawn; the honest ones are drawn as well."""
    swarm = build(
        tmp_path,
        {STRANGER: COMES_S},
        {1: OverlookCandidates(1), 2: OverlookCandidates(1), STRANGER: Idle()},
        probation=10,
        rounds=60,
    )
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    require_sound(swarm, outcome)


def test_candidate_that_vanishes_lapses_without_blame(tmp_path: Path) -> None:
    """Its place is free again, nobody waits for it, and nobody calls it a cheat."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, rounds=60)

    def watch(index: int, event: object) -> None:
        if index == STRANGER and isinstance(event, Admitted):
            swarm.crash(STRANGER)

    swarm._watch = watch
    outcome = play(swarm)
    seals = [event.result.seal for event in outcome.peers[0].rounds]
    assert any(seal.candidates for seal in seals)
    assert not seals[-1].candidates
    assert not find(outcome, 0, Departed)


def test_candidate_killed_in_probation_comes_back_and_is_promoted(tmp_path: Path) -> None:
    """It is on probation still, takes the state anew and goes on; the rounds that it missed do not count."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, rounds=80, probation=12, state_interval=16)

    def watch(index: int, event: object) -> None:
        if index == STRANGER and isinstance(event, Admitted) and not swarm.outcomes[STRANGER].crashes:
            swarm.crash(STRANGER, 1.0)

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.peers[STRANGER].restarts == 1
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_newcomer_killed_after_its_entry_goes_on(tmp_path: Path, after: int) -> None:
    """Its ledger begins with the seal that names it a member, and is enough to come back by."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, rounds=50)
    done: list[int] = []

    def watch(index: int, event: object) -> None:
        if index != STRANGER or swarm.outcomes[STRANGER].crashes:
            return
        done.extend([event.round] if isinstance(event, RoundDone) else [])
        if len(done) == after and (after or isinstance(event, Promoted)):
            swarm.crash(STRANGER, 1.0)

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.peers[STRANGER].restarts == 1
    assert not outcome.departures(DepartureKind.BAN)
    if outcome.peers[STRANGER].error is None:
        require_sound(swarm, outcome)
        assert outcome.peers[STRANGER].rounds[-1].round == 50
    else:  # killed between its promotion and its first word: nothing to come back by, and no blame
        assert after == 0
        assert isinstance(outcome.peers[STRANGER].error, Removed)


def test_member_that_calls_the_run_closed_keeps_nobody_out(tmp_path: Path) -> None:
    """A stranger goes by its own run file: a liar among the members must not send it away."""
    outcome = play(build(tmp_path, {STRANGER: COMES_S}, {1: CloseTheDoor(1), 2: CloseTheDoor(1)}))
    assert find(outcome, STRANGER, Promoted)


def test_candidate_is_told_that_the_run_is_over(tmp_path: Path) -> None:
    """Whose probation is longer than the run hears of its end, and does not wait for members that are gone."""
    outcome = play(build(tmp_path, {STRANGER: COMES_S}, probation=50))
    assert find(outcome, STRANGER, Admitted)
    with pytest.raises(Refused, match="the run is over"):
        raise outcome.peers[STRANGER].error or AssertionError


def test_closed_run_takes_no_ticket(tmp_path: Path) -> None:
    """The stranger is never on probation, and the run never hears of it."""
    outcome = play(build(tmp_path, {STRANGER: COMES_S}, admission="closed"))
    assert not find(outcome, STRANGER, Admitted)
    assert all(not event.result.seal.candidates for event in outcome.peers[0].rounds)


def test_a_ticket_outlasts_the_members_that_took_it(tmp_path: Path) -> None:
    """They keep it in memory: more than f are started again while it waits for the next epoch, and shown it again."""
    swarm = build(tmp_path, {STRANGER: COMES_S, SECOND: COMES_S}, None, rounds=40, state_interval=EPOCH)

    def watch(index: int, event: Any) -> None:
        if isinstance(event, RoundDone) and event.round == EPOCH - 12 + 2 * index and not swarm.outcomes[index].crashes:
            swarm.crash(index, 0.5)

    swarm._watch = watch
    outcome = play(swarm)
    assert [swarm.outcomes[index].crashes for index in range(MEMBERS)] == [1] * MEMBERS
    admitted = sorted(find(outcome, index, Admitted)[0].round for index in (STRANGER, SECOND))
    assert admitted[0] < EPOCH - 12
    assert EPOCH <= admitted[1] <= EPOCH + 1
    assert not outcome.departures(DepartureKind.REMOVAL)
    require_sound(swarm, outcome)
