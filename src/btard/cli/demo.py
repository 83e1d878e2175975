"""``demo``: a whole swarm on this machine, attackers included, and a judgement on it."""

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from btard.errors import ConfigError

DIRECTORY_PREFIX = "btard-demo-"


class Defence(StrEnum):
    """How a demo defends itself."""

    BTARD = "btard"
    NONE = "none"


def demo(
    peers: Annotated[int, typer.Option(min=2, max=64, help="Processes to start; the first is the founder.")] = 8,
    byzantine: Annotated[int, typer.Option(min=0, help="How many of them attack; fewer than half.")] = 3,
    attack: Annotated[str, typer.Option(help="How they attack; mixed: kinds drawn by the seed.")] = "sign-flip",
    rounds: Annotated[int, typer.Option(min=1, help="Training steps.")] = 100,
    task: Annotated[str, typer.Option(help="What is trained: digits, text, or your own as module:Class.")] = "digits",
    seed: Annotated[int, typer.Option(help="Fixes the first parameters and who attacks.")] = 0,
    attack_from: Annotated[int, typer.Option(min=1, help="The round in which they begin.")] = 5,
    defence: Annotated[Defence, typer.Option(help="none: plain averaging without checks, for comparison.")] = (
        Defence.BTARD
    ),
    late_joiners: Annotated[
        int, typer.Option(min=0, max=16, help="Honest strangers that join when training has begun.")
    ] = 0,
    sybils: Annotated[
        int, typer.Option(min=0, max=50, help="Strangers that want in without computing gradients; 250 MB each.")
    ] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="An empty directory for keys, ledgers and logs. [a new temporary one]")
    ] = None,
    delay_s: Annotated[
        float | None, typer.Option(min=0.05, help="Bound on the delay between peers. [1 s for 8 peers, 2 for 16, ...]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the summary only.")] = False,
) -> int:
    """
    Train with N real processes, some of which attack, and watch the swarm throw them out.

    Only the attackers know who attacks; the others find out by the protocol's own checks. Exit code 0
    if every attacker that acted is gone, no honest peer was thrown out and all honest peers end with
    the same parameters; 1 if not; 3 if an attacker began too late to judge.

    With --late-joiners and --sybils strangers come over the first third of the run, with nothing but its
    ticket: they work for a place, fetch the state, and are on probation, where members redo what they say
    to have computed. Exit code 1 too if a late joiner does not become a member that ends with the
    parameters of all, or if a Sybil becomes one. So that this fits into a demo, work and probation are
    small then; the run file has the values.

    Kinds: sign-flip, random-direction, wrong-aggregate, collude, lying-projection, equivocate, withhold,
    withhold-reveal, false-accusation, false-naming, lazy-validator, mixed.

    For example:
        btard-peer demo

        btard-peer demo --peers 16 --byzantine 7 --attack mixed --rounds 200 --json out.json

        btard-peer demo --byzantine 0 --late-joiners 2 --sybils 2

        btard-peer demo --attack sign-flip --defence none
    """
    from btard.cli.demo_plan import Settings
    from btard.cli.demo_run import run_demo

    settings = Settings(
        peers, byzantine, attack, rounds, task, seed, attack_from, defence.value, delay_s, late_joiners, sybils
    )
    directory = choose_directory(data_dir)
    if json_path is not None:
        check_writable(json_path)
    report, exit_code = run_demo(settings, directory, is_quiet=quiet)
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return exit_code


def choose_directory(path: Path | None) -> Path:
    """Return an absolute, empty directory: the one named, or a new temporary one.

    Raises:
        ConfigError: the one named cannot be written, or holds something.
    """
    if path is None:
        return Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_empty = not any(path.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot use {path}: {error.strerror}; choose another --data-dir") from None
    if not is_empty:
        raise ConfigError(f"{path} is not empty; a demo needs a directory of its own: choose another --data-dir")
    return path.absolute()


def check_writable(path: Path) -> None:
    """Return if a result can be written there, before minutes are spent on it.

    Raises:
        ConfigError: it cannot.
    """
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose another --json") from None
