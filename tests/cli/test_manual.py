"""The manual: docs/reference/cli.md lacks no command, option, event or exit code."""

import re
from pathlib import Path

import pytest
import typer

from btard.cli.app import app
from btard.cli.exits import EXIT_CODES, ExitCode

MANUAL = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name):
    """Each command is in the table."""
    assert re.search(rf"^\| `{name}[ `]", MANUAL, flags=re.MULTILINE)


def test_every_option_of_join():
    """Each option of ``join`` that is not hidden is explained."""
    shown = [option for option in COMMANDS["join"].params if not getattr(option, "hidden", False)]
    names = [option.opts[0] for option in shown if option.opts[0].startswith("--")]
    assert [name for name in names if f"`{name}" not in MANUAL] == []


def test_every_exit_code_and_reason():
    """Each exit code has a line, each reason in the log a word."""
    assert [code for code in ExitCode if f"| {int(code)} | " not in MANUAL] == []
    assert [word for _, _, word in EXIT_CODES if f"`{word}`" not in MANUAL] == []
