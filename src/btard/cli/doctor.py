"""``doctor``: would ``join`` work here, and if not, what is to be done?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.doctor_findings import Finding, describe_findings, format_finding, is_well, summarise
from btard.cli.exits import ExitCode
from btard.cli.files import read_run_file
from btard.cli.join import KEY_FILE
from btard.cli.logs import LogLevel, start_logging
from btard.cli.places import choose_listening, parse_announced
from btard.errors import ConfigError
from btard.identity import load_identity
from btard.net import Address
from btard.wire import Ticket, parse_ticket

RUN_FILE = "run.toml"


def doctor(
    ticket: Annotated[
        str | None, typer.Argument(help="The run's ticket: btard1-... Without it only this machine is examined.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="As for join. [this directory, for its disk only]")] = None,
    listen: Annotated[list[str] | None, typer.Option(metavar="ADDR", help="As for join.")] = None,
    announce: Annotated[list[str] | None, typer.Option(metavar="ADDR", help="As for join.")] = None,
    identity: Annotated[Path | None, typer.Option(help="As for join. [DATA_DIR/identity.key]")] = None,
    run_file: Annotated[Path | None, typer.Option(help="As for join. [DATA_DIR/run.toml, if it exists]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> int:
    """
    Examine this machine and the way to a run, with the options that you would give to join.

    One line per check: pass, warn or fail, what was measured, and what to do. Exit code 1 if anything
    fails. Nothing is kept, and nobody is joined; the peers of the run see a newcomer come and go.

    For example:

        btard-peer doctor
        btard-peer doctor btard1-... --data-dir me --listen 0.0.0.0:4001 --announce my.example.org:4001
        btard-peer doctor btard1-... --data-dir me --announce none
    """
    start_logging(LogLevel.ERROR)
    place = parse_ticket(ticket) if ticket else None
    key = identity or (data_dir / KEY_FILE if data_dir else None)
    announced = parse_announced(announce or [])
    listening = choose_listening(listen or [], announced, find_founders_address(place, key))
    kept = data_dir / RUN_FILE if data_dir and (data_dir / RUN_FILE).exists() else None
    source = run_file or kept

    # Only now: torch takes seconds, and a mistake in the command line should not.
    from btard.cli.doctor_examination import Patient, examine

    local = read_run_file(source) if source else None
    patient = Patient(place, data_dir or Path(), key, listening, announced, local, str(source or ""))
    findings: list[Finding] = []
    for finding in examine(patient):
        findings.append(finding)
        if not as_json:
            print(format_finding(finding), flush=True)
    print(json.dumps(describe_findings(findings)) if as_json else summarise(findings))
    return ExitCode.OK if is_well(findings) else ExitCode.FAILED


def find_founders_address(place: Ticket | None, key: Path | None) -> Address | None:
    """Return where a founder would listen: at the first address of its ticket; None if that is not our key."""
    if place is None or key is None or not place.bootstrap:
        return None
    try:
        is_founder = load_identity(key).peer_id == place.founder
        return Address.parse(place.bootstrap[0]) if is_founder else None
    except ConfigError:
        return None
