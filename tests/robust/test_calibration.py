"""Calibration finds the radius of honest noise and a norm bound that honest slices keep."""

import math

import pytest
import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.robust import Layout, calibrate, scale_to_part

LAYOUT = Layout(10_000, 128)


def make_gradients(steps: int, peers: int, sigma: float, seed: int = 0) -> list[list[Tensor]]:
    """Return gradients of equal mean per step with independent noise of ``sigma`` per element."""
    generator = torch.Generator().manual_seed(seed)
    means = [torch.randn(LAYOUT.elements, generator=generator) for _ in range(steps)]
    return [[mean + sigma * torch.randn(LAYOUT.elements, generator=generator) for _ in range(peers)] for mean in means]


def test_tau_is_the_median_distance_of_a_chunk() -> None:
    """For noise of sigma per element, tau is sigma * sqrt(chunk), whatever the mean and the number of peers."""
    for peers in (4, 8):
        calibration = calibrate(make_gradients(4, peers, 0.1), LAYOUT, 8, 0.0)
        assert calibration.tau == pytest.approx(0.1 * math.sqrt(128), rel=0.03)


def test_honest_slices_keep_delta() -> None:
    """Fresh honest gradients stay below delta in every part, and delta is not absurdly large."""
    calibration = calibrate(make_gradients(4, 8, 0.1), LAYOUT, 8, 0.0)
    for rows in make_gradients(3, 8, 0.1, seed=1):
        mean = torch.stack(rows).mean(dim=0)
        slices = [(row - mean)[:1280].norm() for row in rows]
        assert all(float(norm) < scale_to_part(calibration.delta, 1280, 128) for norm in slices)
    assert calibration.tau < calibration.delta < 4 * calibration.tau


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.0, 1e-4), (1e-6, 1e-4), (1e-3, 1e-2)])
def test_tolerance_is_ten_deviations_but_never_below_its_floor(deviation: float, tolerance: float) -> None:
    """Bit-equal hardware still gets 1e-4; anything worse ten times its deviation."""
    assert calibrate(make_gradients(2, 8, 1.0), LAYOUT, 8, deviation).tolerance == pytest.approx(tolerance)


def test_radius_grows_with_the_root_of_the_length() -> None:
    """Four times the elements, twice the radius; an empty part has none."""
    assert scale_to_part(3.0, 512, 128) == 6.0
    assert scale_to_part(3.0, 0, 128) == 0.0


def test_the_roster_size_hardly_matters() -> None:
    """Calibrating for 4 or 16 members gives about the same constants: they are per element."""
    four, sixteen = (calibrate(make_gradients(8, 8, 0.1), LAYOUT, members, 0.0) for members in (4, 16))
    assert four.tau == pytest.approx(sixteen.tau, rel=0.02)


@pytest.mark.parametrize(
    ("gradients", "reason"),
    [
        ([], "at least 64 slices"),
        (make_gradients(1, 2, 1.0), "at least 64 slices"),
        (make_gradients(1, 1, 1.0), "at least two gradients"),
        (make_gradients(8, 8, 0.0), "equal"),
        ([[torch.full((10_000,), math.nan)] * 8] * 8, "not finite"),
        ([[torch.zeros(7)] * 8], "10000 elements"),
    ],
)
def test_gradients_that_cannot_calibrate_are_refused(gradients: list[list[Tensor]], reason: str) -> None:
    """Too few, equal, non-finite or wrongly sized gradients are the user's to fix, and the message says how."""
    with pytest.raises(ConfigError, match=reason):
        calibrate(gradients, LAYOUT, 8, 0.0)
