"""``--json-log``: every event as one line."""

import json

import pytest

from btard.cli.json_log import JsonLog, describe
from btard.cli.progress import describe as describe_in_words
from btard.errors import Banned, ConfigError
from btard.identity import PeerId
from btard.net import Address
from btard.rules.draws import Assignment
from btard.rules.evidence import Cause, DepartureKind
from btard.swarm.events import Departed, DisputeOpened, GradientOverflow, Halted, Recovered, RunStarted
from btard.training import Evaluation, Progress, Ready

ANN, BOB = PeerId(b"\xaa" * 32), PeerId(b"\xbb" * 32)
A, B = ANN.hex(), BOB.hex()
ROUND = Progress(3, 2, 0.25, (ANN, BOB), (Assignment(ANN, BOB),), b"\x01" * 32, Evaluation(0.5, 0.75))
EVENTS = {
    "ready": (
        Ready(ANN, (Address("127.0.0.1", 4000),), 7),
        {"peer": A, "addresses": ["127.0.0.1:4000"], "gradient_ms": 7},
    ),
    "started": (RunStarted((ANN, BOB)), {"roster": [A, B]}),
    "round": (
        ROUND,
        {
            "round": 3, "attempts": 2, "wall_ms": 250.0, "roster_size": 2, "assignments": [[A, B]],
            "state": "01" * 32, "loss": 0.5, "accuracy": 0.75,
        },
    ),
    "departed": (
        Departed(BOB, 3, 1, DepartureKind.BAN, Cause.FALSE_GRADIENT),
        {"peer": B, "round": 3, "attempt": 1, "kind": "ban", "cause": "false-gradient"},
    ),
    "dispute": (
        DisputeOpened("gradient", 3, BOB, ANN), {"kind": "gradient", "round": 3, "accused": B, "accuser": A},
    ),
    "halted": (Halted("CHECK of round 3", (BOB,)), {"stage": "CHECK of round 3", "missing": [B]}),
    "recovered": (Recovered(3, (BOB,), (), 4.5), {"round": 3, "removed": [B], "banned": [], "wall_ms": 4500.0}),
    "overflow": (GradientOverflow(3, 1), {"round": 3, "in_a_row": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_each_event(name):
    """Each event is described under its name, with the fields that the manual lists."""
    event, expected = EVENTS[name]
    assert {"event": name, **expected} == describe(event)


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_in_words(name):
    """Each event also has a line for people; it names peers as tables do, by eight hex digits."""
    line = describe_in_words(EVENTS[name][0])
    assert line
    assert A not in line
    assert B not in line


def test_round_without_evaluation():
    """A round that was not evaluated has null for loss and accuracy."""
    values = describe(Progress(1, 1, 0.1, (ANN,), (), b"", None))
    assert (values["loss"], values["accuracy"]) == (None, None)


def test_lines_are_there_at_once(tmp_path):
    """A line can be read before the log is closed, and an older log is continued."""
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with JsonLog(path) as log:
            log.tell(EVENTS["ready"][0])
            log.fail(Banned("no"))
            lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["ready", "ended"] * 2
    assert lines[1]["reason"] == "banned"
    assert lines[0]["t"] > 1.6e9


def test_log_that_cannot_be_written(tmp_path):
    """A log in a place that does not exist is refused with the option to change."""
    with pytest.raises(ConfigError, match="choose another --json-log"):
        JsonLog(tmp_path / "nowhere" / "log.jsonl")
