"""``calibrate``: what it measures is what a run file says."""

import pytest

from btard.cli.files import read_run_file
from btard.training.calibration import MEASURED


def test_new_run_file_holds_what_was_measured(call, tmp_path):
    """The values that are printed are those in the file, and close to the shipped ones for the same task."""
    ended = call("calibrate", "digits", "--out", tmp_path / "run.toml")
    assert ended.code == 0
    config = read_run_file(tmp_path / "run.toml")
    assert f"tau = {config.tau:.4g}, delta = {config.delta:.4g}" in ended.out
    shipped = MEASURED["digits"].calibration
    assert (config.tau, config.delta) == pytest.approx((shipped.tau, shipped.delta), rel=0.02)


def test_run_file_of_another_task(call, tmp_path, found):
    """A run file of another task is left alone."""
    run = found()
    before = run.run_file.read_text()
    ended = call("calibrate", "text", "--run-file", run.run_file)
    assert ended.code == 2
    assert "a run of digits, not of text" in ended.complaint
    assert run.run_file.read_text() == before
