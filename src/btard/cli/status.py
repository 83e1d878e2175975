"""``status``: where a peer stands in its run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.logs import LogLevel, start_logging


def status(
    data_dir: Annotated[Path, typer.Option(help="The peer's directory, as given to join.")],
    no_dial: Annotated[bool, typer.Option("--no-dial", help="Do not try which members can be reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """
    Report where a peer stands, running or not: round, role, roster, bans, state.

    It is read from the ledger; nothing is written. Members are dialled at the addresses that the peer
    last knew, with a key made for the occasion.

    For example:

        btard-peer status --data-dir me
        btard-peer status --data-dir me --no-dial --json
    """
    start_logging(LogLevel.ERROR)

    # Only now: torch takes seconds, and the help should not.
    from btard.cli.status_measures import count_reachable, read_status
    from btard.cli.status_report import describe_status, format_status

    found = read_status(data_dir)
    reachable = None if no_dial else count_reachable(found, data_dir)
    print(json.dumps(describe_status(found, reachable)) if as_json else format_status(found, reachable))
