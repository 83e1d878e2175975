"""The working half of ``join``: one peer in this process, told to people and programs, stopped by signals."""

import gc
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from btard.attacks import Attacker, make_attacker
from btard.cli.exits import ExitCode
from btard.cli.files import read_run_file, write_run_file
from btard.cli.json_log import JsonLog
from btard.cli.progress import Display
from btard.errors import BtardError, Refused
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.swarm.peer import find_cause
from btard.training import Endpoint, Ready, Trainer, TrainingEvent, TrainingResult, fetch_config
from btard.wire import Ticket

RUN_FILE = "run.toml"


@dataclass(frozen=True)
class Attack:
    """How a peer misbehaves, for experiments."""

    kind: str
    first_round: int
    seed: int
    coalition: Path | None


@dataclass(frozen=True)
class Participation:
    """One peer's part in a run, as the command line says it."""

    ticket: Ticket
    identity: Identity
    data_dir: Path
    run_file: Path | None
    endpoint: Endpoint
    evaluate_every: int
    rounds: int | None
    json_log: Path | None
    attack: Attack | None
    trusted_seal: bytes = b""


def take_part(part: Participation) -> ExitCode:
    """Train to the end, telling people and the log; return the exit code of a training that did not fail.

    Raises:
        BtardError: it failed; the log says so too.
    """
    with ExitStack() as stack:
        log = stack.enter_context(JsonLog(part.json_log)) if part.json_log else None
        try:
            config = find_config(part)
            display = stack.enter_context(Display(config))
            result = trio.run(run_until_signal, make_trainer(part, config, display, log))
        except BtardError as error:
            if log is not None:
                log.fail(error)
            raise
        display.finish(result)
        if log is not None:
            log.finish(result)
    return ExitCode.OK if result.is_finished else ExitCode.INTERRUPTED


def find_config(part: Participation) -> RunConfig:
    """Return the ticket's configuration: from a file, from the data directory, or from a bootstrap peer.

    It lies in the data directory afterwards.

    Raises:
        Refused: a file is that of another run, or the peers that answer are.
        Unreachable: nobody answers.
    """
    ticket, kept = part.ticket, part.data_dir / RUN_FILE
    source = part.run_file or (kept if kept.exists() else None)
    config = (
        read_run_file(source) if source else trio.run(fetch_config, part.identity, ticket, part.endpoint.patience_s)
    )
    if (config.run_id, config.founder_id) != (ticket.run_id, ticket.founder):
        ours, theirs = config.run_id[:4].hex(), ticket.run_id[:4].hex()
        raise Refused(f"{source} is of run {ours}, the ticket of run {theirs}; use the ticket made with that file")
    if not kept.exists():
        write_run_file(config, kept)
    return config


def make_trainer(part: Participation, config: RunConfig, display: Display, log: JsonLog | None) -> Trainer:
    """Return the trainer of this process; it tells both the display and the log."""

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, Ready):
            gc.freeze()  # what was imported stays: looking through it again takes 0.2 s, and all others wait
        display.tell(event)
        if log is not None:
            log.tell(event)

    conduct = make_conduct(part.attack, config, part.identity) if part.attack else None
    if conduct is not None and log is not None:
        conduct.on_first_act = log.note_attack
    return Trainer(
        config,
        part.identity,
        part.data_dir,
        part.endpoint,
        observe=observe,
        evaluate_every=part.evaluate_every,
        leave_after=part.rounds,
        conduct=conduct,
        trusted_seal=part.trusted_seal,
    )


def make_conduct(attack: Attack, config: RunConfig, me: Identity) -> Attacker:
    """Return the conduct of an attacker."""
    return make_attacker(
        attack.kind,
        seed=attack.seed,
        first_round=attack.first_round,
        config=config,
        me=me.peer_id,
        coalition=attack.coalition,
    )


async def run_until_signal(trainer: Trainer) -> TrainingResult:
    """Return the trainer's result; the first SIGINT or SIGTERM stops it."""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_stop_at_signal, trainer)
            result = await trainer.run()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise find_cause(group) from None
    return result


async def _stop_at_signal(trainer: Trainer, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            trainer.stop()
