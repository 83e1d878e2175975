"""``leave``: tell a running peer to say goodbye, and see it off."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btard.cli.exits import ExitCode
from btard.cli.logs import LogLevel, start_logging
from btard.errors import Banned, ConfigError, Removed, Undecided
from btard.identity import short

if TYPE_CHECKING:
    from btard.cli.status_measures import Status

LOOK_S = 0.5
"""Pause between two looks at the peer."""
STARTING_S = 5.0
"""How long a peer that holds its directory may take to listen: it opens its pipe next."""


def leave(
    data_dir: Annotated[Path, typer.Option(help="The peer's directory, as given to join.")],
) -> int:
    """
    Tell a running peer to leave its run for good, with a goodbye, and wait until it is gone.

    It finishes the round that runs, says goodbye in the next one, signs that round's seal, serves whoever
    still checks its work, writes its checkpoint and ends with exit code 0. Nobody waits for it, nobody
    blames it. It is no member then, and the same directory does not bring it back.

    Ctrl-C at the peer itself is something else: it stops at once, the others wait for it until their
    deadline, and the same join command goes on where it was; too late, it has been removed, without blame.

    Ctrl-C here ends the waiting only: the peer leaves all the same. Exit code 0 if it left, 2 if none
    runs, 3 if it ended without its goodbye, 6 if it was banned and 7 if it was removed meanwhile.

    For example:

        btard-peer leave --data-dir me
    """
    start_logging(LogLevel.ERROR)

    # Only now: torch takes seconds, and the help should not.
    from btard.cli.status_measures import read_status

    found = read_status(data_dir)
    if not found.is_running:
        return explain_absence(found, data_dir)
    if found.config.defence == "none":
        raise ConfigError("a run without defence knows no goodbye; end the peer with Ctrl-C")
    ask(data_dir)
    print(f"peer {short(found.peer)} was told to leave; it finishes its round and says goodbye in the next", flush=True)
    return conclude(see_off(found, data_dir))


def explain_absence(found: "Status", directory: Path) -> ExitCode:
    """Return if the peer that does not run has nothing left to leave; nothing is noted for one that starts later.

    Raises:
        ConfigError: it is a member still, or waits for genesis.
    """
    if found.ending is not None:
        print(f"no peer runs in {directory}, and its part in the run is over: {found.role}")
        return ExitCode.OK
    if found.seal is None:
        raise ConfigError(f"no peer runs in {directory}, and it was no member yet: there is nothing to leave")
    raise ConfigError(
        f"no peer runs in {directory}: the others remove it after their deadline, without blame. For a goodbye, "
        "start it with its join command, then leave"
    )


def ask(directory: Path) -> None:
    """Return once the running peer was told.

    Raises:
        ConfigError: it does not listen, or is another user's.
    """
    from btard.training.leave_pipe import ask_to_leave

    deadline = time.monotonic() + STARTING_S
    while not ask_to_leave(directory):
        if time.monotonic() > deadline:
            raise ConfigError(f"the program that uses {directory} cannot be told to leave; end it with Ctrl-C")
        time.sleep(LOOK_S)


def see_off(found: "Status", directory: Path) -> "Status":
    """Return where the peer stands when it is gone, and tell each round that it finishes until then."""
    from btard.cli.status_measures import read_status
    from btard.training.leave_pipe import is_listening

    while found.is_running or is_listening(directory):
        time.sleep(LOOK_S)
        before, found = found, read_status(directory)
        if found.seal is not None and found.seal != before.seal:
            print(f"round {found.seal.round} of {found.config.rounds} is done", flush=True)
    return read_status(directory)


def conclude(found: "Status") -> ExitCode:
    """Return 0 if the peer left, or had nothing to leave.

    Raises:
        Banned, Removed: that came first.
        Undecided: it ended otherwise.
    """
    kind, reason = found.ending or ("", "")
    if kind == "Banned":
        raise Banned(reason)
    if kind == "Removed":
        raise Removed(reason)
    if kind:
        print(f"{found.role}: peer {short(found.peer)} is a member no more")
    elif found.seal is None:
        print("it has stopped; it was no member yet, so there was nothing to say goodbye to")
    else:
        raise Undecided("it ended before its goodbye was settled; start it with its join command, and leave again")
    return ExitCode.OK
