"""``new``: a run file, a ticket, and the commands that use them."""

import math
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from btard.cli.files import read_run_file, write_run_file
from btard.cli.places import parse_places
from btard.errors import ConfigError
from btard.identity import load_or_create_identity
from btard.net import Address
from btard.rules.config import RunConfig, build_config
from btard.wire import Ticket, format_ticket

CALIBRATED = ("tau", "delta", "tolerance")
DEFAULT_LISTEN = "127.0.0.1:4000"


def new(
    task: Annotated[str | None, typer.Option(help="digits, text, or your own as module:Class. [digits]")] = None,
    peers: Annotated[int | None, typer.Option(help="Peers that must have come before training begins. [8]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Training steps. [100]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the initial parameters. [0]")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the run file.")] = Path("run.toml"),
    identity: Annotated[Path, typer.Option(help="The founder's key; made if missing.")] = Path("founder.key"),
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Where the founder listens, TCP and UDP; may be repeated. [127.0.0.1:4000]"),
    ] = None,
    announce: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Where others reach it, if that differs from --listen; may be repeated."),
    ] = None,
    run_file: Annotated[Path | None, typer.Option(help="Begin with the values of this run file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A field of the run file, as field=value; optimizer_options.lr=0.01 sets one of a table."
        ),
    ] = None,
) -> None:
    """
    Found a run: write its run file, print a ticket and the commands that join it.

    The run file is everything peers must agree on; its digest is the run's id, so whoever changes a
    value is in another run. The ticket is what you send to others.

    For example:

        btard-peer new --peers 3 --rounds 50
        btard-peer new --task text --set delay_s=5 --listen 0.0.0.0:4000 --announce lab.example.org:4000
        btard-peer new --set optimizer_options.lr=0.003 --set task_options.batch_size=64
    """
    places = Places(tuple(listen or [DEFAULT_LISTEN]), tuple(announce or ()))
    addresses = parse_bootstrap(places)
    options = {"task": task, "genesis_size": peers, "rounds": rounds, "seed": seed}
    chosen = {name: value for name, value in options.items() if value is not None} | parse_settings(settings or [])
    base = read_run_file(run_file) if run_file else None
    founder = load_or_create_identity(identity)
    config = draft_run(base, chosen | {"founder": founder.peer_id.hex()})
    write_run_file(config, out)
    ticket = format_ticket(Ticket(config.run_id, founder.peer_id, tuple(map(str, addresses))))
    _print_invitation(config, ticket, [str(out), str(identity)], places)


@dataclass(frozen=True)
class Places:
    """Where the founder listens and what it announces, as the command line says it."""

    listen: tuple[str, ...]
    announce: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """The same as options of join."""
        named = (("--listen", self.listen), ("--announce", self.announce))
        return [f"{option} {shlex.quote(word)}" for option, words in named for word in words]


def parse_bootstrap(places: Places) -> tuple[Address, ...]:
    """Return the addresses under which others find the founder.

    Raises:
        ConfigError: not an address, or one without a port that others could know.
    """
    addresses = parse_places(places.announce or places.listen)
    for address in addresses:
        if address.port == 0:
            raise ConfigError("the founder's port must be known to the others; choose one, for example 127.0.0.1:4000")
        if address.host in {"0.0.0.0", "::"}:
            raise ConfigError(
                f"nobody can reach {address}; say with --announce HOST:PORT where others reach the founder"
            )
    return addresses


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the fields set by ``field=value`` or ``table.option=value``; values are TOML, or else words.

    Raises:
        ConfigError: one has no ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} is not field=value, for example --set delay_s=5")
        table, dot, option = name.strip().replace("-", "_").partition(".")
        if dot:
            values.setdefault(table, {})[option] = _parse_value(text)
        else:
            values[table] = _parse_value(text)
    return values


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def draft_run(base: RunConfig | None, chosen: Mapping[str, Any]) -> RunConfig:
    """Return a whole configuration: ``chosen`` over ``base`` over the defaults, and the rest as the task has it.

    Raises:
        ConfigError: an unknown field, task or option, or values that cannot work together.
    """
    from btard.robust import compute_chunk_size
    from btard.training import build_workload

    draft = build_config(asdict(base or RunConfig()) | _merge_tables(base, chosen))
    workload = build_workload(draft)
    facts: dict[str, Any] = {"elements": workload.elements, "dataset": workload.task.fingerprint().hex()}
    if "chunk_size" not in chosen:
        facts["chunk_size"] = compute_chunk_size(workload.elements, draft.genesis_size)
    draft = replace(draft, **facts)
    missing = [name for name in CALIBRATED if name not in chosen]
    constants: dict[str, Any] = _calibrate(base, draft) if missing else {}
    return replace(draft, **{name: constants[name] for name in missing})


def _merge_tables(base: RunConfig | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``chosen`` with options added to those of ``base``, unless another task or optimizer is chosen."""
    merged = dict(chosen)
    for owner, table in (("task", "task_options"), ("optimizer", "optimizer_options")):
        is_same = base is not None and chosen.get(owner, getattr(base, owner)) == getattr(base, owner)
        kept = getattr(base, table) if is_same else {}
        merged[table] = {**kept, **chosen.get(table, {})}
    return merged


def _calibrate(base: RunConfig | None, draft: RunConfig) -> dict[str, float]:
    """Return tau, delta and tolerance: of the same task in ``base``, or known, or measured now."""
    from btard.training import build_workload, calibrate_run, known_calibration

    if base is not None and base.elements and (base.task, base.task_options) == (draft.task, draft.task_options):
        scale = math.sqrt(draft.chunk_size / base.chunk_size)
        return {"tau": base.tau * scale, "delta": base.delta * scale, "tolerance": base.tolerance}
    known = known_calibration(draft)
    if known is None:
        print(f"measuring gradients of {draft.task} ...", file=sys.stderr, flush=True)
        known = calibrate_run(draft, build_workload(draft), draft.genesis_size).calibration
    return asdict(known)


def _print_invitation(config: RunConfig, ticket: str, files: Sequence[str], places: Places) -> None:
    """Print the ticket and two commands that can be pasted as they are."""
    out, identity = map(shlex.quote, files)
    listening = " ".join(places.options)
    print(f"{out}: {config.task}, {config.elements} parameters, {config.rounds} rounds, {config.genesis_size} peers")
    print(f"\nTicket, for everybody:\n\n{ticket}\n")
    print("Start the founder (here):\n")
    print(f"btard-peer join {ticket} --found {out} --identity {identity} {listening} --data-dir founder\n")
    print(f"Start the other {config.genesis_size - 1}, each with a directory of its own:\n")
    print(f"btard-peer join {ticket} --data-dir peer-1")
