"""What a newcomer reads while it solves: rate, mean and bound; a line that moves only on a terminal."""

import io
import math

import pytest
from rich.console import Console
from tests.rules.build import make_config

from btard.cli.progress import Display
from btard.cli.solving import describe_solving, format_duration
from btard.training.solving import Solving


def make_console(*, is_terminal):
    """A console that writes into memory."""
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=200, highlight=False)


def test_line_says_rate_mean_and_bound():
    """8192 evaluations at 82 a second: 100 s on average, five minutes with 95%."""
    assert describe_solving(Solving(412, 1234, 82.0, 8192)) == (
        "solving a join ticket on round 412: 1,234 evaluations, 82.0/s; "
        "100 s left on average, with 95% no more than 5 min"
    )


def test_nothing_is_promised_before_the_first_evaluation():
    """Without a rate there is no estimate."""
    assert describe_solving(Solving(3, 0, 0.0, 8192)) == "solving a join ticket on round 3: 0 evaluations"


def test_a_newer_round_is_said():
    """That the search began anew is no loss, and the line says so."""
    assert "newer round now (nothing is lost by that)" in describe_solving(Solving(4, 9, 1.0, 16, is_new_round=True))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (7200, "2.0 h"),
        (1e9, "for ever"),
        (math.inf, "for ever"),
    ],
)
def test_durations_as_one_says_them(seconds, words):
    """Seconds, minutes, hours, and no figure where it would mean nothing."""
    assert format_duration(seconds) == words


def test_plain_output_is_one_line_in_ten_seconds():
    """A log file is not filled: 25 reports are three lines."""
    console = make_console(is_terminal=False)
    with Display(make_config(), console) as display:
        for number in range(25):
            display.tell(Solving(7, 10 * number, 10.0, 8192))
    lines = console.file.getvalue().splitlines()
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == ["0", "100", "200"]


def test_a_terminal_shows_it_beside_the_bar():
    """The line moves and leaves nothing behind."""
    console = make_console(is_terminal=True)
    with Display(make_config(), console) as display:
        for number in range(25):
            display.tell(Solving(7, 10 * number, 10.0, 8192))
    assert "240 evaluations" in console.file.getvalue()
