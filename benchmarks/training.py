"""
Samples per second of a whole swarm: N real processes over loopback that train a real task, every check on.

With ``--against ddp``, as without saying anything, as many processes of torch's ``DistributedDataParallel`` over gloo
take turns with them in the same call: the same module, loss and batch size for each process, torch's optimizer of
the same kind, no encryption and no checks. A turn is one step of the optimizer by all, the gradient's computation
included: of ours a whole round, until x has moved, the aggregate is on disk and the next gradient is asked for.

One member of ours is drawn each round to redo another's gradient of the round before instead of one of its own. That
is what security costs, so of ours only contributors' samples count; of the others all do. tau, delta and tolerance are
those that ``btard-peer new`` would write. All processes use one thread. With as many processes as cores or fewer the
gradients of all are computed at the same time; with more, both sides wait for the cores.

``ratios`` are our time over the other's in the turn of the same number, ``throughput`` our samples per second over
theirs; CPU seconds, bytes sent and resident memory are means over the processes, medians over the turns.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import typer
from typer import Option

from benchmarks.contest import OURS, Contest, Task, Team, open_contest
from benchmarks.report import Result, compute_median, compute_ratios, describe, format_table, write
from benchmarks.round import check_rivals, format_result
from btard.cli.files import write_run_file
from btard.cli.new import draft_run
from btard.errors import ConfigError
from btard.identity import Context, Identity, digest
from btard.rules.config import RunConfig

RIVALS = ("ddp",)
OPTIMIZERS = ("adamw", "sgd")
RATE = 1e-3
"""The learning rate of all: constant, and low enough for a gradient to stay finite with either optimizer."""
MANY = 1_000_000
FIGURES = {
    "samples_per_s": "samples/s",
    "median_ms": "median ms",
    "p10_ms": "10%",
    "p90_ms": "90%",
    "cpu_s_per_peer": "CPU s per peer",
    "samples": "samples a turn",
    "bytes_data": "data bytes",
    "bytes_protocol": "protocol bytes",
    "rss_bytes": "resident bytes",
}


def draft(peers: int, seed: int, task: str, options: Mapping[str, str | int], optimizer: str) -> RunConfig:
    """Return the run that all train, as ``btard-peer new`` would draft it but for a constant learning rate.

    Raises:
        ConfigError: the task does not take these options.
    """
    founder = Identity(digest(Context.EXPAND, b"training", str(seed).encode()))
    chosen = {
        "founder": founder.peer_id.hex(), "genesis_size": peers, "rounds": MANY, "seed": seed,
        "task": task, "task_options": options,
        "optimizer": optimizer, "optimizer_options": {"lr": RATE, "warmup_steps": 0, "decay": "none"},
    }  # fmt: skip
    return draft_run(None, chosen)


def describe_model(config: RunConfig) -> Result:
    """Return what all train, for people.

    Raises:
        ConfigError: others cannot train it, for the task does not show its module and its minibatches.
    """
    from btard.training.tasks import ModuleTask, load_task

    task = load_task(config.task, config.task_options)
    missing = [name for name in ("batch_size", "module", "minibatch") if not hasattr(task, name)]
    if missing:
        raise ConfigError(f"{config.task} lacks {', '.join(missing)}; docs/how-to/write-a-task.md says what they are")
    said = {"task": config.task, **config.task_options, "batch_size": cast("ModuleTask", task).batch_size}
    return said | {"parameters": config.elements, "optimizer": config.optimizer}


def count_samples(team: Team) -> list[int]:
    """Return how many samples moved x in each turn, of all processes together."""
    return [sum(said["samples"] for said in done) for done in team.rounds]


def compute_speeds(team: Team) -> list[float]:
    """Return the samples per second of each turn."""
    return [1e3 * count / ms for count, ms in zip(count_samples(team), team.durations(), strict=True)]


def sum_up(contest: Contest) -> Result:
    """Return ``results``, ``ratios`` and ``throughput`` of all that has been played."""
    result = contest.sum_up()
    for team in contest.teams:
        if team.rounds:
            speed, samples = compute_median(compute_speeds(team)), compute_median(count_samples(team))
            figures = result["results"][team.name]
            result["results"][team.name] = {"samples_per_s": round(speed, 2), **figures, "samples": samples}
    ours, *others = contest.teams
    result["throughput"] = {
        team.name: compute_ratios(compute_speeds(ours), compute_speeds(team)) or result["ratios"][team.name]
        for team in others
    }
    return result


def format_training(result: Result) -> str:
    """Return the result as Markdown."""
    trained = ", ".join(f"{name} {value}" for name, value in result["model"].items())
    keys = ("median", "min", "max")
    shares = [[name, *(share.get(key) for key in keys)] for name, share in result["throughput"].items()]
    lines = [format_result(result, FIGURES), f"what is trained: {trained}", ""]
    if shares:
        lines += [format_table(["samples/s of btard over", "median", "min", "max"], shares), ""]
    return "\n".join(lines)


def main(
    peers: Annotated[int, Option(min=2, max=64, help="processes of every team")] = 4,
    task: Annotated[str, Option(help="what is trained: digits, text, or your own as module:Class")] = "digits",
    batch_size: Annotated[int | None, Option(min=1, help="samples per process and turn; else the task's own")] = None,
    size: Annotated[str | None, Option(help="of the model of text: tiny, small or large; else small")] = None,
    optimizer: Annotated[str, Option(help=f"of all teams: {' or '.join(OPTIMIZERS)}")] = "adamw",
    rounds: Annotated[int, Option(min=1, help="turns that count")] = 20,
    warm_up: Annotated[int, Option(min=1, help="turns before them; in the first one nobody validates")] = 3,
    against: Annotated[str, Option(help=f"who takes turns with us: {', '.join(RIVALS)}, or nobody")] = "ddp",
    seed: Annotated[int, Option(min=0, help="of x_0, of our keys and of the batches")] = 0,
    directory: Annotated[
        Path | None, Option(exists=True, help="where ledgers and aggregates are written; else where temporary files go")
    ] = None,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure samples per second of a whole swarm of real processes, beside DistributedDataParallel in turns.

    A turn is one step of the optimizer by all processes, the gradient's computation included. Of ours only
    contributors' samples count: one member a round redoes another's gradient, which is what security costs.
    """
    rivals = check_rivals(against, RIVALS)
    if optimizer not in OPTIMIZERS:
        raise typer.BadParameter(f"{optimizer}: known are {', '.join(OPTIMIZERS)}")
    chosen = {"batch_size": batch_size, "size": size}
    options = {name: value for name, value in chosen.items() if value is not None}
    result = describe("training", seed)
    try:
        config = draft(peers, seed, task, options, optimizer)
        result["model"] = describe_model(config)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="btard-training-") as place:
        run_file = Path(place) / "run.toml"
        write_run_file(config, run_file)
        with open_contest(Task(peers, config.elements, seed, run_file), rivals, {}, directory) as contest:
            contest.play(warm_up, rounds)
            result |= sum_up(contest)
    write(path, result)
    print(format_training(result))
    if "reason" in result["results"][OURS]:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
