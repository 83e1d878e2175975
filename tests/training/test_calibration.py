"""The calibration of a run."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.robust import compute_chunk_size
from btard.rules.config import RunConfig
from btard.training import build_workload, calibrate_run, known_calibration
from btard.training.calibration import MEASURED
from btard.training.tasks import draw_uniform

NOISE = 0.01


class Slope:
    """A gradient of ones plus uniform noise in [-NOISE, NOISE); no training changes it."""

    elements = 4096

    def initial_parameters(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> None:
        """No memory."""

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Ones and noise."""
        return 1.0 + NOISE * draw_uniform(seed, self.elements)

    def step(self, parameters: Tensor, aggregate: Tensor, state: None) -> tuple[Tensor, None]:
        """Move."""
        return parameters - aggregate, None


def make_config(peers: int) -> RunConfig:
    """A run of so many peers on the slope."""
    chunk_size = compute_chunk_size(Slope.elements, peers)
    return RunConfig(genesis_size=peers, elements=Slope.elements, chunk_size=chunk_size)


@pytest.mark.parametrize("peers", [2, 8, 16])
def test_radii_measure_the_noise(peers):
    """Tau is the noise of one chunk, NOISE * sqrt(chunk_size / 3), whatever the number of peers; delta is twice it."""
    config = make_config(peers)
    found = calibrate_run(config, Slope(), peers).calibration
    noise = NOISE * math.sqrt(config.chunk_size / 3)
    assert found.tau == pytest.approx(noise, rel=0.05)
    assert found.delta == pytest.approx(2 * noise, rel=0.25)
    assert found.tolerance == 1e-4


def test_gradient_that_is_not_finite():
    """A task that diverges cannot be calibrated, and the error says what to change."""

    class Cliff(Slope):
        def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
            return super().gradient(parameters, seed) * math.nan

    with pytest.raises(ConfigError, match="lower the learning rate"):
        calibrate_run(make_config(8), Cliff(), 8)


def test_shipped_constants_follow_the_chunks():
    """A chunk four times as long has radii twice as large."""
    chunk_size = MEASURED["digits"].chunk_size
    config = RunConfig(elements=60_522, chunk_size=chunk_size)
    exact, double = known_calibration(config), known_calibration(replace(config, chunk_size=4 * chunk_size))
    assert exact == MEASURED["digits"].calibration
    assert (double.tau, double.delta) == pytest.approx((2 * exact.tau, 2 * exact.delta))


@pytest.mark.parametrize("changes", [{"task_options": {"batch_size": 4}}, {"task": "my_module:Task"}])
def test_nothing_is_known_of_other_tasks(changes):
    """Other options and other tasks have to be measured."""
    assert known_calibration(RunConfig(elements=60_522, chunk_size=512, **changes)) is None


@pytest.mark.parametrize("task", MEASURED)
def test_shipped_constants_are_for_eight_peers(task):
    """The shipped constants belong to the chunks that a run of eight peers has."""
    job = build_workload(RunConfig(task=task))
    assert MEASURED[task].chunk_size == compute_chunk_size(job.elements, 8)
