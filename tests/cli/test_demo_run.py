"""The demo with children that only pretend to train, and once with real ones."""

import json
import os
import signal
import subprocess
import sys

import pytest
import trio

from btard.cli import demo_run
from btard.cli.app import run
from btard.cli.demo import check_writable, choose_directory
from btard.cli.demo_run import Demo
from btard.cli.demo_story import Story
from btard.cli.demo_table import Screen
from btard.errors import ConfigError

from .small_plans import make_small_plan
from .test_demo_table import make_console

PRETENDER = """
import json, signal, sys
with open(sys.argv[1], "w") as log:
    for event in sys.argv[2:]:
        if event == "wait":
            log.flush()
            try:
                signal.pause()
            except KeyboardInterrupt:
                pass
        else:
            log.write(event + "\\n")
"""
STARTED = json.dumps({"event": "started", "roster": []})
FINISHED = json.dumps({"event": "finished", "round": 20, "rounds": 20, "state": "ab"})
WAIT = "wait"


@pytest.fixture
def make_demo(tmp_path, monkeypatch):
    """Return a function that makes a demo whose players tell the given events."""

    def make(*scripts: list[str]) -> Demo:
        plan = make_small_plan(tmp_path, None, None, "sign-flip")
        for player in plan.players:
            player.directory.mkdir()

        def pretend(_plan, player) -> list[str]:
            return [sys.executable, "-c", PRETENDER, str(player.log), *scripts[player.number]]

        monkeypatch.setattr(demo_run, "make_command", pretend)
        monkeypatch.setattr(demo_run, "ATTACKERS_GRACE_S", 0.1)
        return Demo(plan, Story(plan.players))

    return make


async def run_to_end(demo: Demo) -> None:
    """Run the demo without anything on screen."""
    with trio.fail_after(60), Screen(demo.plan, demo.story, make_console(is_terminal=False), is_quiet=True) as screen:
        await demo.run(screen)


async def test_it_ends_with_the_honest(make_demo):
    """When all honest peers have ended, an attacker that hangs around is ended too."""
    demo = make_demo([STARTED, FINISHED], [STARTED, FINISHED], [STARTED, WAIT])
    await run_to_end(demo)
    assert demo.story.accounts[2].is_over
    assert demo.problems == []
    assert not demo.is_interrupted


async def test_it_ends_when_it_cannot_begin(make_demo):
    """When a peer gives up before training begins, the others are not waited for."""
    demo = make_demo([WAIT], [], [WAIT])
    await run_to_end(demo)
    assert "a peer gave up before training began" in demo.problems
    assert any(problem.startswith("peer 1 ended with code 0") for problem in demo.problems)
    assert all(account.is_over for account in demo.story.accounts)


async def test_it_ends_when_nothing_happens(make_demo, monkeypatch):
    """When nobody says anything for long, all are ended and the demo says so."""
    monkeypatch.setattr(demo_run, "STALL_S", 1.0)
    demo = make_demo([STARTED, WAIT], [STARTED, WAIT], [STARTED, WAIT])
    await run_to_end(demo)
    assert "no peer said anything for 1 s" in demo.problems


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_every_child(make_demo, number):
    """Ctrl-C and SIGTERM end the demo; no process is left, and nobody is blamed."""
    demo = make_demo([STARTED, WAIT], [STARTED, WAIT], [STARTED, WAIT])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_to_end, demo)
        with trio.fail_after(60):
            while not all(account.is_started for account in demo.story.accounts):
                await trio.sleep(0.01)
        os.kill(os.getpid(), number)
    assert demo.is_interrupted
    assert demo.problems == ["interrupted"]
    assert all(account.is_over for account in demo.story.accounts)


def test_a_directory_of_its_own(tmp_path):
    """A demo takes a new or an empty directory; a used one or a file is refused, with what to do."""
    assert choose_directory(tmp_path / "new" / "one") == tmp_path / "new" / "one"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        choose_directory(tmp_path)
    with pytest.raises(ConfigError, match="choose another --data-dir"):
        choose_directory(tmp_path / "file")


def test_a_result_that_cannot_be_written(tmp_path):
    """It is refused before minutes are spent."""
    with pytest.raises(ConfigError, match="choose another --json"):
        check_writable(tmp_path / "missing" / "out.json")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--attack", "sing-flip"], "known are mixed"),
        (["--byzantine", "4"], "at most 3"),
        (["--task", "chess"], "chess"),
        (["--sybils", "50"], "choose --rounds 560"),
        (["--json", "/nowhere/out.json"], "choose another --json"),
    ],
)
def test_wrong_options_are_one_line(options, advice, capsys, tmp_path):
    """A wrong option is one line that says what to change, and exit code 2."""
    assert run(["demo", "--quiet", "--data-dir", str(tmp_path / "demo"), *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert advice in lines[0]


@pytest.mark.timeout(300)
def test_a_small_real_swarm(tmp_path):
    """Four real processes train on real data, ban the one that aggregates wrongly, and audit clean."""
    result = tmp_path / "out.json"
    command = [sys.executable, "-m", "btard.cli", "demo", "--peers", "4", "--byzantine", "1", "--rounds", "8"]
    command += ["--attack", "wrong-aggregate", "--json", str(result), "--data-dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(result.read_text())
    assert report["verdict"] == "ok"
    assert report["audits_ok"]
    assert [peer["cause"] for peer in report["peers"] if peer["byzantine"]] == ["wrong-aggregate"]
    assert "verdict: ok" in done.stdout
