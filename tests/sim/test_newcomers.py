"""The checkers of those who join midway notice what must not happen, and play whole scenarios in which they come."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.sim.test_checkers import PEERS, end_round, require

from btard.rules.seal import Candidate, Seal
from btard.sim.checkers import Balance, Progress, Truth
from btard.sim.drawing import Order
from btard.sim.newcomers import MOST_WAITS, Admissions, Welcome, count_free, find_breaches
from btard.sim.play import play
from btard.sim.scenario import Absence, Arrival, Crash, Entrance, Fault, Moment, Scenario, Weather
from btard.swarm.events import RoundDone

ENTRANCE = Entrance(probation=3, check_rate=1.0, state_interval=4)
MEMBERS, STRANGER = PEERS[:4], PEERS[4]
CALM = Scenario(1, 5, 40, "stub", {}, 1, (Fault.STRANGERS,), Weather(), entrance=ENTRANCE, arrivals=(Arrival(2),))


def make_truth(kind: str = "") -> Truth:
    """Return a truth about four members of the genesis and a stranger."""
    return Truth(PEERS, {4: kind} if kind else {}, rounds=9, genesis=4, entrance=ENTRANCE)


def seal(number: int, *candidates: tuple[int, int], roster: tuple[bytes, ...] = MEMBERS, banned=()) -> Seal:
    """Return the seal of a round; candidates are all the stranger, by since when and how many rounds it worked."""
    items = tuple(Candidate(STRANGER, since, worked) for since, worked in candidates)
    return Seal(bytes(32), number, 0, b"", bytes(32), b"", roster, banned, b"", bytes(32), 100, items, 0, 2)


def done(item: Seal) -> RoundDone:
    """Return what a member tells at the end of the round of a seal."""
    event = end_round(item.round, roster=item.roster)
    return replace(event, result=replace(event.result, seal=item))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (seal(5), seal(6, roster=PEERS), "never a candidate"),
        (seal(5, (1, 1)), seal(6, roster=PEERS), "promoted after 2 rounds"),
        (seal(5, (1, 0)), seal(6, (1, 2)), "worked 2 rounds after 0"),
        (seal(5, banned=(STRANGER,)), seal(6, (6, 0), banned=(STRANGER,)), "is banned"),
        (seal(5, (1, 2), banned=(STRANGER,)), seal(6, roster=PEERS, banned=(STRANGER,)), "is banned"),
    ],
)
def test_entries_against_the_rules_are_noticed(before: Seal, after: Seal, words: str) -> None:
    """Nobody is a member who was no candidate, or has worked too little, or is banned."""
    assert [problem for problem in find_breaches(make_truth(), before, after) if words in problem]


def test_an_entry_by_the_rules_is_none() -> None:
    """Admitted, at work, promoted."""
    way = [seal(4), seal(5, (5, 0)), seal(6, (5, 1)), seal(7, (5, 1)), seal(8, (5, 2)), seal(9, roster=PEERS)]
    assert [problem for pair in pairwise(way) for problem in find_breaches(make_truth(), *pair)] == []


def test_places_are_counted_as_the_design_says() -> None:
    """One of four members' worth at a time, and one an epoch."""
    assert count_free(make_truth(), seal(5)) == 1
    assert count_free(make_truth(), seal(5, (3, 0))) == 0
    taken = seal(5)
    taken = Seal(*[getattr(taken, name) if name != "admitted" else 1 for name in taken.__struct_fields__])
    assert count_free(make_truth(), taken) == 0
    assert (
        count_free(make_truth(), Seal(*[7 if n == "round" else getattr(taken, n) for n in taken.__struct_fields__]))
        == 1
    )


def test_whoever_skipped_what_is_always_checked_must_not_come_in() -> None:
    """With every work checked by honest members all skipped rounds are found; those just before the end later."""
    rounds = range(5, 12)
    seals = [seal(number, (5, number - 5)) for number in rounds]
    ends = [seal(12, roster=PEERS), seal(13, roster=PEERS)]
    for skipped, is_wrong in (({6, 7}, True), ({10, 11}, False), (set(), False)):
        checker = Admissions(make_truth("idle-candidate"), lambda skipped=skipped: {4: skipped})  # type: ignore[misc]
        checker.arrive(4, 3)
        for item in (seal(4), *seals, *ends):
            checker.observe(0, done(item))
        assert checker.ways[4].promoted == 12
        assert bool(checker.violations) is is_wrong


def test_a_stranger_that_finds_no_place_though_one_is_free_breaks_progress() -> None:
    """So does one that is on probation and is gone; for a cheat nobody waits."""
    for kind in ("", "false-ticket"):
        truth = make_truth(kind)
        admissions = Admissions(truth, dict)
        admissions.arrive(4, 1)
        checker = Welcome(truth, admissions.ways)
        for number in range(1, MOST_WAITS + 5):
            checker.observe(0, done(seal(number)))
        assert bool(checker.violations) is not kind
    lapsing = Welcome(make_truth(), admissions.ways)
    for item in (seal(5, (5, 0)), seal(6, (5, 1)), seal(7), seal(8)):
        lapsing.observe(0, done(item))
    require(lapsing, "did not come through probation")


def test_balance_counts_newcomers() -> None:
    """A cheat that comes in counts from then on, and an honest one as well."""
    balance = Balance(Truth(PEERS, {2: "late", 3: "late", 4: "late"}, genesis=4))
    assert not balance.is_kept
    balance = Balance(Truth(PEERS, {2: "late"}, genesis=3))
    assert balance.is_kept
    balance.note(done(seal(5, roster=PEERS)))
    assert balance.is_kept


def test_a_stranger_may_end_with_the_run_and_not_before() -> None:
    """Refused where the run is over; a member of the genesis has no such excuse."""
    from btard.errors import Refused

    for newest, index, is_wrong in ((8, 4, False), (5, 4, True), (8, 0, True)):
        checker = Progress(make_truth())
        checker.observe(0, done(seal(newest)))
        checker.ended(index, Refused("the run is over"))
        assert bool(checker.violations) is is_wrong


def test_a_stranger_and_a_member_that_comes_back_are_promoted(tmp_path: Path) -> None:
    """The report follows both, and every ledger that begins midway holds."""
    scenario = replace(CALM, absences=(Absence(3, 4, 2.0),))
    report = play(scenario, tmp_path)
    assert (report.violations, report.rounds_done, report.counts["comebacks"]) == ((), 40, 1)
    assert {index: way.promoted is not None for index, way in report.ways.items()} == {3: True, 5: True}
    told = report.as_json()["strangers"]
    assert [(item["peer"], item["kind"], item["skipped"]) for item in told] == [(3, "", 0), (5, "", 0)]


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("step", [0, 2, 6])
def test_a_stranger_that_crashes_on_its_way_is_a_member_all_the_same(step: int, moment: Moment, tmp_path: Path) -> None:
    """Before its ticket, on probation, as a newcomer: it goes on where its ledger says, or as a stranger."""
    entrance = replace(ENTRANCE, probation=10)  # a state is fetched twice meanwhile
    scenario = replace(CALM, entrance=entrance, crashes=(Crash(5, step, moment, 1, 0.5),))
    report = play(scenario, tmp_path)
    assert (report.violations, report.rounds_done) == ((), 40)
    assert report.ways[5].promoted is not None


def test_strangers_are_drawn() -> None:
    """Honest ones and cheats, members that leave to come back; never more cheats that may be members than are borne."""
    drawn = [Order(faults="strangers").draw(seed) for seed in range(60)]
    assert {len([i for i in item.honest if i >= item.peers]) for item in drawn} == {0, 1, 2, 3, 4}
    assert any(item.absences for item in drawn)
    assert any(item.comeback_s is None for item in drawn)
    assert any(index >= item.peers for item in drawn for index in item.adversaries)
    assert not [
        item for item in (Order(faults="strangers", byzantine=0).draw(seed) for seed in range(20)) if item.adversaries
    ]
