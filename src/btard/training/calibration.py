"""
tau, delta and tolerance of a run, measured on its own gradients or known from an earlier measurement.

Honest gradients are taken at several points of an undisturbed training, because their spread changes
as the model learns: large at first, then with the size of the gradients themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from btard.identity import Context, digest
from btard.robust import Calibration, Layout, calibrate, compute_mean
from btard.rules.config import RunConfig
from btard.swarm.workload import Workload

SAMPLED_STEPS = (0, 1, 2, 5, 10, 20, 40)
"""Updates after which gradients are measured."""
ROWS_MIN = 8
"""Gradients taken at each of these steps, also for fewer peers: enough slices to know their spread."""


@dataclass(frozen=True)
class Measurement:
    """A calibration for chunks of ``chunk_size`` and what it was measured on."""

    calibration: Calibration
    chunk_size: int
    gradients: int
    median_norm: float
    deviation: float


def calibrate_run(config: RunConfig, workload: Workload, members: int) -> Measurement:
    """Return the constants for a run of ``members`` peers; ``config`` gives the chunk size.

    Raises:
        ConfigError: gradients are not finite, do not differ, or are too few.
    """
    samples = _collect(workload, max(ROWS_MIN, members))
    layout = Layout(config.elements, config.chunk_size)
    deviation = _measure_deviation(workload)
    norms = [float(torch.linalg.vector_norm(row)) for rows in samples for row in rows]
    return Measurement(
        calibrate(samples, layout, members, deviation),
        config.chunk_size,
        len(norms),
        sorted(norms)[len(norms) // 2],
        deviation,
    )


def _collect(workload: Workload, members: int) -> Sequence[Sequence[Tensor]]:
    """Return honest gradients, ``members`` at each sampled step of a training without attackers."""
    parameters, state = workload.initial_parameters(), workload.initial_optimizer()
    samples = []
    for step in range(SAMPLED_STEPS[-1] + 1):
        rows = [workload.gradient(parameters, _seed(step, member)) for member in range(members)]
        if step in SAMPLED_STEPS:
            samples.append(rows)
        parameters, state = workload.step(parameters, compute_mean(rows), state)
    return samples


def _seed(step: int, member: int) -> bytes:
    return digest(Context.MINIBATCH, b"calibration", step.to_bytes(4, "little"), member.to_bytes(4, "little"))


def _measure_deviation(workload: Workload) -> float:
    """Return the relative difference of one gradient computed twice here; other hardware cannot be seen from here."""
    parameters, seed = workload.initial_parameters(), _seed(0, 0)
    first, second = workload.gradient(parameters, seed), workload.gradient(parameters, seed)
    return float(torch.linalg.vector_norm(first - second) / torch.linalg.vector_norm(first))


def known_calibration(config: RunConfig) -> Calibration | None:
    """Return the shipped constants for a task with its own default options, scaled to the run's chunks."""
    known = MEASURED.get(config.task)
    if known is None or config.task_options:
        return None
    scale = math.sqrt(config.chunk_size / known.chunk_size)
    return replace(known.calibration, tau=known.calibration.tau * scale, delta=known.calibration.delta * scale)


MEASURED: Mapping[str, Measurement] = {
    "digits": Measurement(Calibration(tau=0.2972, delta=1.974, tolerance=1e-4), 512, 56, 4.731, 0.0),
    "text": Measurement(Calibration(tau=0.06788, delta=0.8743, tolerance=1e-4), 4096, 56, 1.489, 0.0),
}
"""What ``btard-peer calibrate`` measures for the shipped tasks with 8 peers; a test measures the first again."""
