"""The command line itself: help, option names, environment, exit codes."""

import subprocess
import sys

import pytest

from btard.cli.app import keep_examples
from btard.cli.exits import ExitCode, explain, find_exit
from btard.cli.taking_part import Participation
from btard.errors import (
    Banned,
    ConfigError,
    ConnectionLost,
    InternalError,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    Removed,
    RequestTimedOut,
    Undecided,
    Unreachable,
)

COMMANDS = ("new", "doctor", "join", "status", "demo", "calibrate", "evaluate", "audit", "keygen", "version")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError, 2),
        (Undecided, 3),
        (Unreachable, 4),
        (ConnectionLost, 4),
        (RequestTimedOut, 4),
        (Refused, 5),
        (RemoteProtocolError, 5),
        (Banned, 6),
        (Removed, 7),
        (LocalProtocolError, 1),
        (InternalError, 1),
    ],
)
def test_exit_code_of_each_error(error, code):
    """Each kind of error has the exit code that the manual promises."""
    assert code == find_exit(error("reason"))[0]


def test_explanation_is_one_line():
    """An error of several lines becomes one, and says what it is."""
    assert explain(Banned("the roster\nconvicted us")) == "banned: the roster convicted us"
    assert explain(ConfigError("give a number")) == "give a number"
    assert "please report" in explain(InternalError("x"))


def test_help_names_every_command(call):
    """The first help shows all commands and how two peers are started."""
    ended = call("--help")
    assert ended.code == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in ended.out] == []
    assert "      btard-peer join TICKET --data-dir friend\n" in ended.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example(call, name):
    """Every command's help has a line that can be pasted, unbroken."""
    ended = call(name, "--help")
    assert ended.code == 0
    assert f"      btard-peer {name}" in ended.out


def test_help_hides_the_attacks(call):
    """Options for experiments are not shown to people who want to train."""
    assert "attack" not in call("join", "--help").out


def test_without_a_command(call):
    """No command is a mistake; the help is shown."""
    ended = call()
    assert ended.code == ExitCode.USAGE
    assert "Usage: btard-peer" in ended.out


def test_help_does_not_import_torch():
    """Help and version come at once: torch, which takes seconds, is not imported."""
    script = (
        "import sys\n"
        "from btard.cli.app import run\n"
        "assert run(['join', '--help']) == 0\n"
        "assert run(['version']) == 0\n"
        "assert 'torch' not in sys.modules and 'trio_asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_dashes_and_underscores(call, tmp_path):
    """Both spellings of an option are the same option."""
    arguments = ["--identity", tmp_path / "key", "--out", tmp_path / "a.toml"]
    assert call("new", *arguments).code == 0
    assert call("new", "--run_file", tmp_path / "a.toml", *arguments).code == 0


def test_options_from_the_environment(call, tmp_path, monkeypatch):
    """An option may come from the environment, and the command line wins over it."""
    monkeypatch.setenv("BTARD_NEW_ROUNDS", "7")
    monkeypatch.setenv("BTARD_NEW_PEERS", "3")
    ended = call("new", "--peers", 4, "--identity", tmp_path / "key", "--out", tmp_path / "run.toml")
    assert "7 rounds, 4 peers" in ended.out


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({}, ["--max-rounds", 7]),
        ({}, ["--max_rounds", 7]),
        ({}, ["--rounds", 7]),
        ({"BTARD_JOIN_MAX_ROUNDS": "7"}, []),
        ({"BTARD_JOIN_ROUNDS": "7"}, []),
        ({"BTARD_JOIN_MAX_ROUNDS": "8"}, ["--rounds", 7]),
    ],
)
def test_rounds_after_which_to_leave(call, found, tmp_path, monkeypatch, variables, options):
    """Both names of the option say after how many rounds a peer leaves, on the command line and in the environment."""
    asked: list[Participation] = []
    monkeypatch.setattr("btard.cli.taking_part.take_part", lambda part: asked.append(part) or ExitCode.OK)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call("join", found().word, "--data-dir", tmp_path / "me", *options).code == 0
    assert [part.rounds for part in asked] == [7]


def test_examples_are_kept():
    """Indented paragraphs keep their lines; the others may be wrapped."""
    assert keep_examples("One.\n\n    a\n    b\n\nTwo.") == "One.\n\n\b\n    a\n    b\n\nTwo."
