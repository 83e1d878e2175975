"""How a command ends: one line on standard error, and a number that scripts can rely on."""

from enum import IntEnum

from btard.errors import (
    Banned,
    BtardError,
    ConfigError,
    NetworkError,
    Refused,
    RemoteProtocolError,
    Removed,
    Undecided,
)


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    """An audit or an invariant failed."""
    USAGE = 2
    UNDECIDED = 3
    UNREACHABLE = 4
    REFUSED = 5
    """Or a mismatch: another run, configuration, model, data set."""
    BANNED = 6
    REMOVED = 7
    INTERRUPTED = 130


EXIT_CODES: tuple[tuple[type[BtardError], ExitCode, str], ...] = (
    (Banned, ExitCode.BANNED, "banned"),
    (Removed, ExitCode.REMOVED, "removed"),
    (Undecided, ExitCode.UNDECIDED, "undecided"),
    (Refused, ExitCode.REFUSED, "refused"),
    (RemoteProtocolError, ExitCode.REFUSED, "refused"),
    (NetworkError, ExitCode.UNREACHABLE, "unreachable"),
    (ConfigError, ExitCode.USAGE, "usage"),
    (BtardError, ExitCode.FAILED, "error"),
)
"""Which error ends with which code, and the word for it in JSON logs; the first that fits."""


def find_exit(error: BtardError) -> tuple[ExitCode, str]:
    """Return the exit code of an error and the word for it."""
    return next((code, word) for kind, code, word in EXIT_CODES if isinstance(error, kind))


def explain(error: BtardError) -> str:
    """Return the one line for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    match find_exit(error)[0]:
        case ExitCode.BANNED:
            return f"banned: {text}"
        case ExitCode.REMOVED:
            return f"removed: {text}"
        case ExitCode.FAILED:
            return f"internal error, please report it: {type(error).__name__}: {text}"
        case _:
            return text
