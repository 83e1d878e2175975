"""``calibrate``: tau, delta and tolerance of a run, measured."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.files import read_run_file, write_run_file
from btard.errors import ConfigError


def calibrate(
    task: Annotated[str, typer.Argument(help="digits, text, or your own as module:Class.")],
    run_file: Annotated[
        Path | None, typer.Option(help="Write the values into this run file; it keeps its other values.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a new run file, to be used with: new --run-file.")] = None,
    peers: Annotated[int | None, typer.Option(min=2, help="Peers of the run. [as in the run file, else 8]")] = None,
) -> None:
    """
    Measure honest gradients of a task and write clipping radius, norm bound and tolerance.

    Gradients of several peers are taken at several steps of an undisturbed training. tau is the
    median distance of a slice from the mean, delta twice the largest, tolerance at least 1e-4.

    For example:

        btard-peer calibrate digits
        btard-peer calibrate my_package:MyTask --out mine.toml
        btard-peer calibrate text --run-file run.toml
    """
    import torch

    from btard.robust import compute_chunk_size
    from btard.rules.config import RunConfig
    from btard.training import build_workload, calibrate_run

    torch.set_num_threads(1)
    base = read_run_file(run_file) if run_file else RunConfig(task=task)
    if base.task != task:
        raise ConfigError(f"{run_file} is a run of {base.task}, not of {task}; name its task, or use --out")
    members = peers or base.genesis_size
    workload = build_workload(base)
    chunk_size = compute_chunk_size(workload.elements, members)
    config = replace(
        base,
        genesis_size=members,
        elements=workload.elements,
        chunk_size=chunk_size,
        dataset=workload.task.fingerprint().hex(),
    )
    measured = calibrate_run(config, workload, members)
    found = measured.calibration
    print(f"{task}: {config.elements} parameters, chunks of {chunk_size}, {measured.gradients} gradients")
    print(f"  median norm of a gradient  {measured.median_norm:.4g}")
    print(f"  deviation when repeated    {measured.deviation:.3g}")
    print(f"  tau = {found.tau:.4g}, delta = {found.delta:.4g}, tolerance = {found.tolerance:.4g}")
    target = out or run_file
    if target is not None:
        write_run_file(replace(config, **asdict(found)), target)
        print(f"written to {target}; a run with other values is another run: print its ticket with")
        print(f"  btard-peer new --run-file {target}")
