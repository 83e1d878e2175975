"""Events of peers become a story, and a story a report."""

import pytest

from btard.cli.demo_report import build_report
from btard.cli.demo_story import Departure, Story

from .small_plans import add_strangers, make_players, make_small_plan

HONEST, OTHER, CHEAT = ("00" * 32, "01" * 32, "02" * 32)


def round_event(number: int, wall_ms: float = 100.0, **changes) -> dict:
    """Return the event of a finished round."""
    event = {"event": "round", "round": number, "attempts": 1, "wall_ms": wall_ms, "roster_size": 3}
    return {**event, "assignments": [], "state": "ab", "loss": None, "accuracy": None, **changes}


def finished_event(number: int = 20, **changes) -> dict:
    """Return the event of a peer that finished."""
    sent = {"data": 4000, "protocol": 200}
    event = {"event": "finished", "round": number, "rounds": number, "state": "ab" * 32, "bytes": sent}
    return {**event, "loss": 0.5, "accuracy": 0.9, **changes}


def departed_event(peer: str, number: int, kind: str = "ban", cause: str = "false-gradient") -> dict:
    """Return the event of a departure."""
    return {"event": "departed", "peer": peer, "round": number, "attempt": 0, "kind": kind, "cause": cause}


@pytest.fixture
def plan(tmp_path):
    """Two honest peers and one that attacks."""
    return make_small_plan(tmp_path, None, None, "sign-flip")


@pytest.fixture
def story(plan):
    """Nothing has happened yet."""
    return Story(plan.players)


def tell_a_good_end(story: Story) -> None:
    """Let the attacker act and be banned, and both others finish."""
    story.tell(2, {"event": "attacked", "round": 5})
    for number in (0, 1):
        story.tell(number, {"event": "dispute", "kind": "gradient", "round": 6, "accused": CHEAT, "accuser": OTHER})
        story.tell(number, departed_event(CHEAT, 6))
        story.tell(number, round_event(20, wall_ms=100.0 + number))
        story.tell(number, finished_event())
        story.tell(number, {"event": "exit", "code": 0})
    story.tell(2, {"event": "ended", "reason": "banned", "message": "the roster convicted this peer"})


def test_start_up_is_counted(story):
    """Peers count as warm once they are ready; training begins when one says so."""
    assert (story.ready, story.is_started) == (0, False)
    story.tell(0, {"event": "ready", "peer": HONEST})
    story.tell(2, {"event": "ready", "peer": CHEAT})
    assert (story.ready, story.is_started) == (2, False)
    story.tell(0, {"event": "started", "roster": [HONEST, OTHER, CHEAT]})
    assert story.is_started


def test_nobody_starts_without_everybody(story):
    """A process that ends before training begins ends the demo; afterwards it does not."""
    story.tell(1, {"event": "exit", "code": 5})
    assert story.cannot_start
    story.tell(0, {"event": "started", "roster": []})
    assert not story.cannot_start


def test_the_end_waits_for_the_honest_only(story):
    """The demo is over when all honest processes have ended, whatever attackers do."""
    story.tell(0, {"event": "exit", "code": 0})
    assert not story.is_over
    story.tell(1, {"event": "exit", "code": 0})
    assert story.is_over


def test_attackers_are_not_believed(story):
    """A ban that only an attacker tells of, or that the banned tells of itself, did not happen."""
    story.tell(2, departed_event(HONEST, 6))
    story.tell(0, departed_event(HONEST, 6))
    assert story.first_departure(HONEST, "ban") is None
    story.tell(1, departed_event(HONEST, 7))
    assert story.first_departure(HONEST, "ban") == Departure(HONEST, 7, "ban", "false-gradient", None)


def test_the_newest_round_and_evaluation_are_found(story):
    """The screen shows the newest round of all honest peers, and the newest that was evaluated."""
    story.tell(0, round_event(10, accuracy=0.8, loss=0.7))
    story.tell(1, round_event(12))
    story.tell(2, round_event(99))
    assert (story.newest["round"], story.evaluation["round"]) == (12, 10)


def test_unknown_events_are_ignored(story):
    """A newer peer may tell what this demo does not know."""
    story.tell(0, {"event": "weather", "sky": "blue"})
    assert story.accounts[0].state == "starting"


def test_a_good_end_is_reported(plan, story):
    """The report has what the peers told, and its verdict."""
    tell_a_good_end(story)
    report = build_report(plan, story, wall_s=30.04, startup_s=9.0, audits_ok=True)
    assert (report["verdict"], report["reasons"]) == ("ok", [])
    assert (report["rounds"], report["accuracy"], report["wall_s"]) == (20, 0.9, 30.0)
    assert report["state_digests"] == ["ab" * 32]
    assert report["bytes_per_round"] == {"data": 200.0, "protocol": 10.0}
    assert report["round_ms"] == {"median": 100.5, "p90": 101.0}
    assert (report["false_bans"], report["false_removals"]) == (0, 0)
    assert report["peers"][2] == {
        "id": CHEAT,
        "byzantine": True,
        "attack": "sign-flip",
        "attacked_from_round": 5,
        "banned_in_round": 6,
        "removed_in_round": None,
        "cause": "false-gradient",
        "opponent": OTHER,
        "ended": "banned",
        "ledger": str(plan.players[2].ledger),
    }


def test_false_blame_is_counted(plan, story):
    """Honest peers that others saw banned or removed are counted, and the demo failed."""
    tell_a_good_end(story)
    story.tell(0, departed_event(OTHER, 8, "removal", "silence"))
    story.tell(1, departed_event(HONEST, 8))
    report = build_report(plan, story, wall_s=30.0, startup_s=9.0, audits_ok=True)
    assert (report["false_bans"], report["false_removals"], report["verdict"]) == (1, 1, "failed")


def test_the_exempt_are_listed(tmp_path):
    """Validators that merely never accuse are listed, nobody else."""
    plan = make_small_plan(tmp_path, None, "lazy-validator", "sign-flip")
    report = build_report(plan, Story(plan.players), wall_s=1.0, startup_s=0.0, audits_ok=None)
    assert report["exempt"] == [OTHER]


def test_different_states_are_all_listed(plan, story):
    """Each distinct final state of honest peers is listed once."""
    tell_a_good_end(story)
    story.tell(1, finished_event(state="cd" * 32))
    report = build_report(plan, story, wall_s=30.0, startup_s=9.0, audits_ok=True)
    assert report["state_digests"] == ["ab" * 32, "cd" * 32]


def test_a_demo_that_never_began_is_reported(plan, story):
    """Without a single event there is a report, and it failed."""
    report = build_report(plan, story, wall_s=1.0, startup_s=0.0, audits_ok=None)
    assert report["verdict"] == "failed"
    assert (report["accuracy"], report["round_ms"]) == (None, {"median": None, "p90": None})


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "starting"),
        ([{"event": "ready"}], "warm"),
        ([{"event": "ready"}, {"event": "started"}], "training"),
        ([{"event": "started"}, {"event": "exit", "code": 1}], "exit 1"),
        ([{"event": "ended", "reason": "removed", "message": ""}, {"event": "exit", "code": 7}], "removed"),
        ([finished_event(), {"event": "exit", "code": 0}], "finished"),
    ],
)
def test_a_peer_is_in_one_state(story, events, state):
    """One word says how a peer is."""
    for event in events:
        story.tell(0, event)
    assert story.accounts[0].state == state


@pytest.fixture
def strange(tmp_path):
    """The story of two honest peers, a late joiner (number 2) and a Sybil (number 3)."""
    return Story(add_strangers(make_small_plan(tmp_path, None, None), None, "idle-candidate").players)


def test_a_start_does_not_wait_for_strangers(strange):
    """Strangers are not counted among the warm; one that gives up does not keep the run from starting."""
    strange.tell(2, {"event": "ready"})
    strange.tell(3, {"event": "exit", "code": 4})
    assert (strange.ready, strange.cannot_start, strange.is_started) == (0, False, False)


def test_the_end_waits_for_strangers_that_became_members(strange):
    """A candidate is not waited for when all members have ended; a promoted one is, and a Sybil never."""
    for number in (0, 1):
        strange.tell(number, {"event": "exit", "code": 0})
    assert strange.is_over
    strange.tell(2, {"event": "admitted", "round": 8})
    strange.tell(3, {"event": "promoted", "round": 15})
    assert strange.is_over
    assert strange.accounts[2].state == "candidate"
    strange.tell(2, {"event": "promoted", "round": 16})
    assert not strange.is_over
    strange.tell(2, {"event": "exit", "code": 0})
    assert strange.is_over


def test_a_stranger_comes_when_its_round_is_done(strange):
    """What counts is the newest round of whoever is honest."""
    assert not strange.is_done(2)
    strange.tell(3, round_event(9))
    assert not strange.is_done(2)
    strange.tell(1, round_event(2))
    assert strange.is_done(2)
    assert not strange.is_done(3)


def test_ids_in_a_plan_are_distinct(tmp_path):
    """The players of these tests have the ids that the tests name."""
    assert [player.peer for player in make_players(tmp_path, None, None, "x")] == [HONEST, OTHER, CHEAT]
