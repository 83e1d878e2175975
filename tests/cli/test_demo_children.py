"""Processes are heard, and none is left behind."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import trio

from btard.cli import demo_children
from btard.cli.demo_children import Children, Start, Tail, last_line

WRITER = """
import sys
with open(sys.argv[1], "w") as log:
    log.write('{"event": "ready"}\\n{"event": "fin')
    log.flush()
    log.write('ished"}\\nno json\\n[1]\\n{"event": 1}\\n')
print("done")
sys.exit(7)
"""

SLEEPER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
with open(sys.argv[1], "w") as log:
    try:
        log.write('{"event": "ready"}\\n')
        log.flush()
        signal.pause()
    except KeyboardInterrupt:
        log.write('{"event": "ended"}\\n')
"""

STUBBORN = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
with open(sys.argv[1], "w") as log:
    log.write('{"event": "ready"}\\n')
while True:
    signal.pause()
"""

LET_GO = """
from btard.cli.leash import hold_leash
is_let_go = hold_leash()
try:
    print("waits", flush=True)
    is_let_go.wait()
    print("goes", flush=True)
    is_let_go.clear()
    is_let_go.wait()
except KeyboardInterrupt:
    print("interrupted")
"""

WAITER = """
import os, sys
with open(sys.argv[1], "w") as log:
    log.write('{"event": "ready"}\\n')
    log.flush()
    os.read(0, 1)
    log.write('{"event": "gone"}\\n')
"""

LEASHED = """
from btard.cli.leash import hold_leash
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job
try:
    hold_leash()
    print("held", flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def make_start(tmp_path):
    """Return a function that makes the start of a child that runs a script."""

    def make(number: int, script: str) -> Start:
        log = tmp_path / f"{number}.jsonl"
        return Start([sys.executable, "-c", script, str(log)], log, tmp_path / f"{number}.log")

    return make


async def run_until_all_ready(children: Children, told: list, count: int) -> None:
    """Run children; cancel them once so many are ready."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(children.run)
            while sum(event == {"event": "ready"} for _, event in told) < count:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_events_are_told_in_order(make_start):
    """Every JSON line is told once, whole, in order, with its child's number; the exit comes last."""
    told = []
    children = Children(
        [make_start(0, WRITER), make_start(1, WRITER)], lambda number, event: told.append((number, event))
    )
    with trio.fail_after(60):
        await children.run()
    for number in (0, 1):
        events = [event for teller, event in told if teller == number]
        assert events == [{"event": "ready"}, {"event": "finished"}, {"event": "exit", "code": 7}]


async def test_cancelled_children_end_by_themselves(make_start):
    """A cancelled demo interrupts its children, waits for them, and hears their last words."""
    told = []
    children = Children([make_start(n, SLEEPER) for n in (0, 1)], lambda number, event: told.append((number, event)))
    await run_until_all_ready(children, told, 2)
    for number in (0, 1):
        events = [event for teller, event in told if teller == number]
        assert events == [{"event": "ready"}, {"event": "ended"}, {"event": "exit", "code": 0}]


async def test_who_does_not_end_is_killed(make_start, monkeypatch):
    """A child that ignores the interrupt is killed after the grace period."""
    monkeypatch.setattr(demo_children, "GRACE_S", 0.2)
    told = []
    children = Children([make_start(0, STUBBORN)], lambda number, event: told.append((number, event)))
    await run_until_all_ready(children, told, 1)
    assert told[-1] == (0, {"event": "exit", "code": -signal.SIGKILL})


async def test_a_failed_start_ends_the_others(make_start, tmp_path):
    """If one program cannot be started, those started before it are ended."""
    told = []
    missing = Start([str(tmp_path / "missing")], tmp_path / "x.jsonl", tmp_path / "x.log")
    children = Children([make_start(0, SLEEPER), missing], lambda number, event: told.append((number, event)))
    with trio.fail_after(60), pytest.raises(ExceptionGroup) as caught:
        await children.run()
    assert caught.group_contains(FileNotFoundError)
    assert told[-1][1]["event"] == "exit"


def test_a_leash_ends_the_child_of_a_dead_parent():
    """Whoever is on a leash is interrupted when the other end of its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", LEASHED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        child.stdin.close()
        assert child.stdout.read() == "interrupted\n"
    assert child.returncode == 0


def test_a_leash_lets_go_once():
    """The first byte lets the child go; it is on its leash still."""
    with subprocess.Popen(
        [sys.executable, "-c", LET_GO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "waits\n"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "goes\n"
        child.stdin.close()
        assert child.stdout.read() == "interrupted\n"


async def test_a_child_begins_when_it_is_due(make_start):
    """A child that waits to be let go hears nothing before it is due."""
    told, is_due = [], []
    start = replace(make_start(0, WAITER), is_due=lambda: bool(is_due))
    children = Children([start], lambda number, event: told.append(event["event"]))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(children.run)
            while not told:
                await trio.sleep(0.01)
            await trio.sleep(3 * demo_children.POLL_S)
            assert told == ["ready"]
            is_due.append(True)
    assert told == ["ready", "gone", "exit"]


def test_a_tail_waits_for_its_file_and_for_whole_lines(tmp_path):
    """Nothing is read before the file exists; half a line waits for its other half."""
    tail = Tail(tmp_path / "log")
    assert tail.read() == []
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b'{"event": "a"}\n{"event":')
        assert tail.read() == [{"event": "a"}]
        log.write(b' "b"}\n')
        assert tail.read() == [{"event": "b"}]
    tail.close()


def test_last_words(tmp_path):
    """The last line that is not blank is found, and none where there is no file."""
    (tmp_path / "output").write_text("one\nbtard-peer: two \n\n")
    assert last_line(tmp_path / "output") == "btard-peer: two"
    assert last_line(tmp_path / "missing") == ""
