"""The manual: docs/reference/cli.md lacks no command, option, event or exit code."""

import re
from pathlib import Path

import pytest
import typer

from btard.cli.app import app
from btard.cli.exits import EXIT_CODES, ExitCode

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


def test_every_check_of_the_doctor():
    """Each check that a rule of the doctor names is in the manual's table, and only those."""
    rules = "".join(path.read_text() for path in (ROOT / "src" / "btard" / "cli").glob("doctor_*.py"))
    named = set(re.findall(r"\b(?:passed|warned|failed|verdict)\(\s*\"(\w+)\"", rules))
    section = MANUAL.partition("## doctor")[2].partition("## join")[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE) for name in row.split("`")[1::2]
    }
    assert named == listed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name):
    """Each command is in the table."""
    assert re.search(rf"^\| `{name}[ `]", MANUAL, flags=re.MULTILINE)


@pytest.mark.parametrize("command", ["join", "doctor", "leave", "status"])
def test_every_option(command):
    """Each option that is not hidden is explained."""
    shown = [option for option in COMMANDS[command].params if not getattr(option, "hidden", False)]
    names = [option.opts[0] for option in shown if option.opts[0].startswith("--")]
    assert [name for name in names if f"`{name}" not in MANUAL] == []


def test_every_exit_code_and_reason():
    """Each exit code has a line, each reason in the log a word."""
    assert [code for code in ExitCode if f"| {int(code)} | " not in MANUAL] == []
    assert [word for _, _, word in EXIT_CODES if f"`{word}`" not in MANUAL] == []
