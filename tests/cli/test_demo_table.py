"""What people see of a demo."""

import io

import pytest
from rich.console import Console

from btard.cli.demo_report import build_report
from btard.cli.demo_story import Story
from btard.cli.demo_table import PlainLines, Screen, print_summary, render
from btard.cli.demo_ways import Way

from .small_plans import add_strangers, make_small_plan

FOUNDER, HONEST, CHEAT = ("00" * 32, "01" * 32, "02" * 32)
ROUND = {"event": "round", "attempts": 1, "wall_ms": 151.4, "roster_size": 3, "state": "ab", "loss": None}
DEPARTED = {"event": "departed", "peer": CHEAT, "round": 6, "attempt": 0, "kind": "ban", "cause": "false-gradient"}
DISPUTE = {"event": "dispute", "kind": "gradient", "round": 6, "accused": CHEAT, "accuser": HONEST}


@pytest.fixture
def plan(tmp_path):
    """Two honest peers and one that attacks."""
    return make_small_plan(tmp_path, None, None, "sign-flip")


@pytest.fixture
def story(plan):
    """Nothing has happened yet."""
    return Story(plan.players)


def make_console(*, is_terminal: bool) -> Console:
    """Return a console that writes to memory."""
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, highlight=False, no_color=True)


def round_event(number: int, **changes) -> dict:
    """Return the event of a finished round."""
    return {**ROUND, "round": number, "assignments": [[HONEST, CHEAT]], "accuracy": None, **changes}


def tell_everything(story: Story) -> None:
    """Let the demo start, ban its attacker, and train on."""
    for number in (0, 1, 2):
        story.tell(number, {"event": "ready", "peer": story.accounts[number].player.peer})
    story.tell(0, {"event": "started", "roster": [FOUNDER, HONEST, CHEAT]})
    story.tell(2, {"event": "attacked", "round": 5})
    story.tell(0, DISPUTE)
    story.tell(0, DEPARTED)
    story.tell(1, DEPARTED)
    story.tell(0, round_event(10, loss=0.25, accuracy=0.95))


def test_every_line_is_told_once(plan, story):
    """Lines say what is new since the last call; a departure seen by two peers is one line."""
    lines = PlainLines(plan, story)
    story.tell(1, {"event": "ready", "peer": HONEST})
    assert [line for line, _ in lines.take()] == ["1 of 3 peers are warm"]
    tell_everything(story)
    assert [line for line, _ in lines.take()] == [
        "3 of 3 peers are warm",
        "training begins: 3 peers, 0 parameters",
        "round 6: 02020202 (sign-flip) banned: false-gradient, against 01010101",
        "round 10 of 20: loss 0.250, accuracy 95.0%, 3 peers, 151 ms, validates: 01010101→02020202",
    ]
    assert list(lines.take()) == []
    story.tell(0, round_event(11))
    assert list(lines.take()) == []


def test_without_a_terminal_there_are_plain_lines(plan, story):
    """A log file gets lines, and no control characters."""
    console = make_console(is_terminal=False)
    with Screen(plan, story, console) as screen:
        tell_everything(story)
        screen.refresh()
    text = console.file.getvalue()
    assert "banned: false-gradient" in text
    assert "accuracy 95.0%" in text
    assert "\x1b" not in text


def test_on_a_terminal_there_is_a_table(plan, story):
    """A terminal gets the table, redrawn in place."""
    console = make_console(is_terminal=True)
    with Screen(plan, story, console) as screen:
        tell_everything(story)
        screen.refresh()
    text = console.file.getvalue()
    assert "validates" in text
    assert "\x1b[" in text


def test_quiet_is_quiet(plan, story):
    """Nothing at all is printed."""
    console = make_console(is_terminal=True)
    with Screen(plan, story, console, is_quiet=True) as screen:
        tell_everything(story)
        screen.refresh()
    assert not console.file.getvalue()


def test_the_table_says_who_is_what(plan, story):
    """Each peer has a line: what it is, how far it is, whom it validates, and how it left."""
    tell_everything(story)
    console = make_console(is_terminal=False)
    console.print(render(plan, story))
    lines = console.file.getvalue().splitlines()
    founder, honest, cheat = (
        next(line for line in lines if line[2:].startswith(peer[:8])) for peer in (FOUNDER, HONEST, CHEAT)
    )
    assert "founder" in founder
    assert "10" in founder
    assert "02020202" in honest
    assert "banned in round 6: false-gradient" in cheat


def test_late_joiners_are_shown_on_their_way(tmp_path):
    """What a late joiner tells of its way is a line each; what a Sybil tells is none."""
    plan = add_strangers(make_small_plan(tmp_path, None, None), None, "idle-candidate")
    story = Story(plan.players)
    lines = PlainLines(plan, story)
    for number in (2, 3):
        story.tell(number, {"event": "admitted", "round": 8})
        story.tell(number, {"event": "promoted", "round": 17})
    assert list(lines.take()) == [
        ("round 8: 02020202 (late joiner) admitted on probation", True),
        ("round 17: 02020202 (late joiner) promoted", True),
    ]
    assert list(lines.take()) == []


def test_the_summary_says_who_came_in(tmp_path):
    """Late joiners and Sybils have lines of their own, and a count."""
    plan = add_strangers(make_small_plan(tmp_path, None, None), None, "idle-candidate")
    story = Story(plan.players)
    story.tell(0, {**DEPARTED, "peer": plan.players[3].peer, "round": 19})
    ways = {plan.players[2].peer: Way(8, promoted_in=17), plan.players[3].peer: Way(12, lapsed_in=19)}
    report = build_report(plan, story, wall_s=30.0, startup_s=9.0, audits_ok=True, ways=ways)
    console = make_console(is_terminal=False)
    print_summary(console, report, "here")
    text = console.file.getvalue()
    assert "candidate in round 8, member from round 17" in text
    assert "banned: false-gradient in round 19" in text
    assert "late joiners that became members: 1 of 1" in text
    assert "Sybils that became members: 0 of 1" in text
    assert "--late-joiners 1 --sybils 1" in report["command"]


def test_the_summary_says_what_to_do_next(plan, story):
    """The summary has the attackers, the verdict, and the audit command of an honest ledger."""
    tell_everything(story)
    report = build_report(plan, story, wall_s=30.0, startup_s=9.0, audits_ok=True)
    console = make_console(is_terminal=False)
    print_summary(console, report, "here")
    text = console.file.getvalue()
    assert "attackers that acted: 1, gone: 1" in text
    assert "banned in round 6: false-gradient" in text
    assert "failed: the honest peer 00000000 did not finish: training" in text
    assert "verdict: failed" in text
    assert f"btard-peer audit {plan.players[0].ledger}" in text


@pytest.mark.parametrize(("kind", "words"), [("lazy-validator", "exempt"), ("sign-flip", "still there")])
def test_the_summary_says_who_stayed(tmp_path, kind, words):
    """An attacker that acted and stayed is named as such, or as exempt."""
    plan = make_small_plan(tmp_path, None, None, kind)
    story = Story(plan.players)
    story.tell(2, {"event": "attacked", "round": 5})
    report = build_report(plan, story, wall_s=30.0, startup_s=9.0, audits_ok=None)
    console = make_console(is_terminal=False)
    print_summary(console, report, "here")
    assert words in console.file.getvalue()
