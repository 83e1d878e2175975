"""``join``: real processes on loopback, from the first address to the audit."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from btard.training import load_checkpoint, newest_checkpoint
from btard.wire import Ticket, format_ticket, parse_ticket

SECONDS_MAX = 100
pytestmark = pytest.mark.timeout(3 * SECONDS_MAX)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts btard-peer as a process; whatever runs at the end is killed."""
    with ExitStack() as stack:

        def start(*arguments: object) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "btard.cli", *(str(argument) for argument in arguments)]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def start_founder(start: Start, found, tmp_path) -> Callable[..., tuple[subprocess.Popen[str], str]]:
    """Return a function that starts a founder; with its process comes a ticket to where it really listens."""

    def start_founder(*options: object) -> tuple[subprocess.Popen[str], str]:
        run = found(*options)
        known = parse_ticket(run.word)
        alone = format_ticket(Ticket(known.run_id, known.founder, ()))
        process = start(
            "join", alone, "--found", run.run_file, "--identity", run.key, "--listen", "127.0.0.1:0",
            "--data-dir", tmp_path / "founder", "--json-log", tmp_path / "founder.jsonl",
        )  # fmt: skip
        return process, format_ticket(Ticket(known.run_id, known.founder, (read_address(process),)))

    return start_founder


def read_address(process: subprocess.Popen[str]) -> str:
    """Return where a peer says it listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"listens at (\S+);", line):
            return match[1]
    raise AssertionError(process.communicate()[1])


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Return once a peer has printed a line with ``words``."""
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), process.communicate()[1]


def read_log(path: Path) -> list[dict[str, object]]:
    """Return the events of a JSON log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_three_peers_train(start_founder, start, call, tmp_path):
    """Three processes, two of which hold only a ticket, end with the same parameters, checkpoints, sound ledgers."""
    names = ("founder", "ann", "bob")
    founder, ticket = start_founder("--peers", 3, "--rounds", 3)
    members = [
        start("join", ticket, "--data-dir", tmp_path / name, "--json-log", tmp_path / f"{name}.jsonl")
        for name in names[1:]
    ]
    for process in (founder, *members):
        _, complaint = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, complaint) == (0, "")
    logs = [read_log(tmp_path / f"{name}.jsonl") for name in names]
    for log in logs:
        assert [line["event"] for line in log] == ["ready", "started", *["round"] * 3, "finished"]
        assert log[-1]["state"] == logs[0][-1]["state"] == log[-2]["state"]
        assert log[-1]["bytes"]["data"] > 4 * 2 * 60_522  # a validator twice sends no slices twice
    for name in names:
        assert call("audit", tmp_path / name).code == 0
        newest = newest_checkpoint(tmp_path / name / "checkpoints")
        assert load_checkpoint(newest).round == 3
    shown = call("evaluate", newest, "--json")
    assert json.loads(shown.out)["loss"] == pytest.approx(logs[0][-1]["loss"])


def test_interrupted_peer_keeps_its_state(start_founder, start, call, tmp_path):
    """Ctrl-C ends a peer in the middle of a run: exit code 130, a checkpoint, a ledger that audits clean."""
    founder, ticket = start_founder("--peers", 2, "--rounds", 10_000, "--set", "admission=closed")
    member = start("join", ticket, "--data-dir", tmp_path / "ann", "--json-log", tmp_path / "ann.jsonl")
    wait_for(member, "round 2/")
    late = start("join", ticket, "--data-dir", tmp_path / "late")
    _, complaint = late.communicate(timeout=SECONDS_MAX)
    assert late.returncode == 5
    assert "this run admits nobody after its genesis" in complaint
    for process in (member, founder):
        os.kill(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, complaint) == (130, "")
    assert read_log(tmp_path / "ann.jsonl")[-1]["reason"] == "interrupted"
    assert newest_checkpoint(tmp_path / "ann" / "checkpoints") is not None
    assert call("audit", tmp_path / "ann").code == 0
