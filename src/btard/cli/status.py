"""``status``: where a peer stands in its run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.logs import LogLevel, start_logging


def status(
    data_dir: Annotated[Path, typer.Option(help="The peer's directory, as given to join.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """
    Report where a peer stands, running or not: round, role, roster, candidates, bans, state.

    It is read from the peer's directory; nothing is written. A running peer is asked how many members it has
    links to. A member also prints a ticket with which others can join the run that goes on: it leads to the
    members of now, and to no other history than the one that contains the newest signed seal.

    For example:

        btard-peer status --data-dir me
        btard-peer status --data-dir me --json
    """
    start_logging(LogLevel.ERROR)

    # Only now: torch takes seconds, and the help should not.
    from btard.cli.status_invitation import make_invitation
    from btard.cli.status_measures import ask_for_links, read_status
    from btard.cli.status_report import describe_status, format_status

    found = read_status(data_dir)
    links = ask_for_links(found, data_dir) if found.is_running else None
    ticket = make_invitation(found, data_dir)
    print(json.dumps(describe_status(found, links, ticket)) if as_json else format_status(found, links, ticket))
