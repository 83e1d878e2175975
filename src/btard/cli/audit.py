"""``audit``: is what a ledger says true?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.exits import ExitCode


def audit(
    path: Annotated[Path, typer.Argument(help="A peer's data directory, or the ledger.sqlite3 in it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> int:
    """
    Check a ledger without the network: every signature, every link of the chain, every proof.

    Exit code 1 if anything is wrong.

    For example:

        btard-peer audit me
        btard-peer audit me/ledger.sqlite3 --json
    """
    from btard.cli.audit_report import describe, format_audit
    from btard.swarm.audit import audit_ledger

    result = audit_ledger(path)
    print(json.dumps(describe(result)) if as_json else format_audit(path, result))
    return ExitCode.OK if result.ok else ExitCode.FAILED
