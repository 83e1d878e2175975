"""``join``: one peer of one run, until its end."""

from pathlib import Path
from typing import Annotated

import typer

from btard.cli.leash import OPTION, WAIT_OPTION, hold_leash
from btard.cli.logs import LogLevel, start_logging
from btard.cli.places import ANNOUNCE_HELP, ANY_PORT, LISTEN_HELP, choose_listening, parse_announced
from btard.errors import ConfigError
from btard.identity import DIGEST_SIZE, Identity, PeerId, load_identity, load_or_create_identity
from btard.net import Address
from btard.wire import parse_ticket

FOUNDER_EVALUATES_EVERY = 10
KEY_FILE = "identity.key"
FOUND_HELP = "Be the founder of the run in this file, with the key that made it."
ROUNDS_HELP = "Leave with a goodbye after so many rounds. [all of the run]"
ROUNDS_VARIABLES = ["BTARD_JOIN_MAX_ROUNDS", "BTARD_JOIN_ROUNDS"]
TRUST_HELP = "A recent seal, from somebody you trust: refuse any run without it."


def join(
    ticket: Annotated[str, typer.Argument(help="The word that the founder gave you: btard1-...")],
    data_dir: Annotated[Path, typer.Option(help="Directory for key, ledger and checkpoints; one per peer.")],
    found: Annotated[Path | None, typer.Option(help=FOUND_HELP)] = None,
    run_file: Annotated[Path | None, typer.Option(help="The run's file, if you have it; else it is fetched.")] = None,
    listen: Annotated[list[str] | None, typer.Option(metavar="ADDR", help=LISTEN_HELP)] = None,
    announce: Annotated[list[str] | None, typer.Option(metavar="ADDR", help=ANNOUNCE_HELP)] = None,
    identity: Annotated[Path | None, typer.Option(help="Your key; made if missing. [DATA_DIR/identity.key]")] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(min=0, help="Rounds between evaluations; 0: only at the end. [founder: 10, others: 0]")
    ] = None,
    max_rounds: Annotated[
        int | None, typer.Option("--max-rounds", "--rounds", min=1, envvar=ROUNDS_VARIABLES, help=ROUNDS_HELP)
    ] = None,
    trust_seal: Annotated[str | None, typer.Option(metavar="DIGEST", help=TRUST_HELP)] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to try addresses that do not answer.")] = 60.0,
    json_log: Annotated[Path | None, typer.Option(help="Append events here, one JSON object a line.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="What to log on standard error.")] = LogLevel.WARNING,
    attack: Annotated[str | None, typer.Option(hidden=True)] = None,
    attack_from: Annotated[int, typer.Option(hidden=True)] = 5,
    attack_seed: Annotated[int, typer.Option(hidden=True)] = 0,
    coalition: Annotated[Path | None, typer.Option(hidden=True)] = None,
    leash: Annotated[bool, typer.Option(OPTION, hidden=True)] = False,
    wait_to_be_let_go: Annotated[bool, typer.Option(WAIT_OPTION, hidden=True)] = False,
) -> int:
    """
    Take part in a run until its end.

    Training begins when as many peers have come as the run file says. Whoever comes later works for a
    ticket, fetches the state, and is a candidate for some rounds before it is a member. Ctrl-C stops this peer and
    keeps its newest state in DATA_DIR/checkpoints; the same command goes on where it was, if it comes
    back before the others stop waiting. To leave for good, with a goodbye, use: btard-peer leave

    Others must be able to reach you, or you them: an address is HOST:PORT or [IPV6]:PORT, open for TCP and
    UDP. Behind a router that forwards nothing, say --announce none; then all other members must be
    reachable. What works here, btard-peer doctor tells with the same options.

    For example, on one machine; with a port that the router forwards; with IPv4 and IPv6; behind NAT; and
    the founder:

        btard-peer join btard1-... --data-dir me
        btard-peer join btard1-... --data-dir me --listen 0.0.0.0:4001 --announce my.example.org:4001
        btard-peer join btard1-... --data-dir me --listen 192.0.2.7:4001 --listen [2001:db8::7]:4001
        btard-peer join btard1-... --data-dir me --announce none
        btard-peer join btard1-... --found run.toml --identity founder.key --data-dir founder
    """
    start_logging(log_level)
    is_let_go = hold_leash() if leash else None
    place = parse_ticket(ticket)
    bootstrap = tuple(Address.parse(text) for text in place.bootstrap)
    announced = parse_announced(announce or [])
    founders = (bootstrap or (ANY_PORT,))[0] if found else None
    listening = choose_listening(listen or [], announced, founders)
    me = open_identity(data_dir, identity, is_founder=found is not None)
    check_founder(place.founder, me.peer_id, is_founder=found is not None)

    # Only now: torch takes seconds, and a mistake in the command line should not.
    from btard.cli.taking_part import Attack, Participation, take_part
    from btard.training import Endpoint

    if evaluate_every is None:
        evaluate_every = FOUNDER_EVALUATES_EVERY if found else 0
    endpoint = Endpoint(listening, announced, bootstrap, wait)
    trusted = parse_digest(trust_seal) if trust_seal else place.seal
    plan = Attack(attack, attack_from, attack_seed, coalition) if attack else None
    if is_let_go is not None and wait_to_be_let_go:
        is_let_go.wait()
    run_file = found or run_file
    return take_part(
        Participation(place, me, data_dir, run_file, endpoint, evaluate_every, max_rounds, json_log, plan, trusted)
    )


def parse_digest(text: str) -> bytes:
    """Return the digest of a seal.

    Raises:
        ConfigError: it is none.
    """
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_SIZE:
        raise ConfigError(f"{text[:80]!r} is no digest of a seal: 64 hex digits, as btard-peer status prints them")
    return digest


def open_identity(data_dir: Path, path: Path | None, *, is_founder: bool) -> Identity:
    """Return the peer's key: the one at ``path``, or one in its data directory, made if missing."""
    make_data_directory(data_dir)
    chosen = path or data_dir / KEY_FILE
    return load_identity(chosen) if is_founder and path else load_or_create_identity(chosen)


def make_data_directory(path: Path) -> None:
    """Make the directory if it does not exist.

    Raises:
        ConfigError: it cannot be made or written.
    """
    probe = path / ".writable"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write in {path}: {error.strerror}; choose another --data-dir") from None


def check_founder(founder: bytes, me: PeerId, *, is_founder: bool) -> None:
    """Return if our key fits our role.

    Raises:
        ConfigError: it does not.
    """
    if is_founder and me != founder:
        raise ConfigError("this is not the founder's key; give that with --identity, or leave --found out")
    if not is_founder and me == founder:
        raise ConfigError("this is the founder's key; add --found RUN_FILE, or use another --identity")
