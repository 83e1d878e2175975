"""The command ``btard-peer``: its sub-commands, and the one place where errors become exit codes."""

import inspect
import sys
from collections.abc import Sequence

import typer

from btard.cli.audit import audit
from btard.cli.calibrate import calibrate
from btard.cli.demo import demo
from btard.cli.doctor import doctor
from btard.cli.evaluate import evaluate
from btard.cli.exits import ExitCode, explain, find_exit
from btard.cli.join import join
from btard.cli.keys import keygen, version
from btard.cli.leave import leave
from btard.cli.new import new
from btard.cli.simulate import simulate
from btard.cli.status import status
from btard.errors import BtardError

PROGRAM = "btard-peer"
HELP = """
Train one neural network with strangers: cheaters are found by the protocol and thrown out.

Two peers on one machine, each in its own terminal:

    btard-peer new --peers 2 --rounds 50    (prints a ticket and the commands to paste)
    btard-peer join TICKET --found run.toml --identity founder.key --data-dir founder
    btard-peer join TICKET --data-dir friend

Or see it all at once: btard-peer demo

Every option can also be given as an environment variable: BTARD_JOIN_DATA_DIR is --data-dir of join.

Exit codes: 0 ok, 1 audit or check failed, 2 usage, 3 undecided, 4 unreachable, 5 refused or mismatch, 6 banned,
7 removed, 130 interrupted.
"""


def keep_examples(text: str) -> str:
    """Return a help text whose indented paragraphs are shown line by line, as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"\b\n{each}" if each.startswith("    ") else each for each in paragraphs)


app = typer.Typer(
    name=PROGRAM,
    help=keep_examples(HELP),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "auto_envvar_prefix": "BTARD",
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
for command in (demo, simulate, new, doctor, join, leave, status, calibrate, evaluate, audit, keygen, version):
    text = keep_examples(command.__doc__ or "")
    app.command(help=text, short_help=" ".join(text.split("\n\n")[0].split()))(command)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what is wrong is one line on standard error."""
    command = typer.main.get_command(app)
    try:
        result = command.main(list(arguments) or ["--help"], PROGRAM, standalone_mode=False)
    except BtardError as error:
        _complain(explain(error))
        return find_exit(error)[0]
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        usage = _as_usage_error(error)
        if usage is None:
            raise
        _complain(usage)
        return ExitCode.USAGE
    return int(result or ExitCode.OK) if arguments else ExitCode.USAGE


def _as_usage_error(error: Exception) -> str | None:
    """Return what is wrong with the command line, or ``None`` if that is not what the error is about."""
    # click's base class: typer brings its own copy of click or not, depending on its version.
    if not any(base.__name__ == "ClickException" for base in type(error).__mro__):
        return None
    context = getattr(error, "ctx", None)
    path = PROGRAM if context is None else context.command_path
    return f"{error.format_message().rstrip('.')} (try: {path} --help)"  # type: ignore[attr-defined]


def _complain(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
