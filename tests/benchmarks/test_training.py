"""Training in turns: whose samples count, that both sides do the same work, and one small contest of real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks.contest import Contest, Task, Team
from benchmarks.contestants import ddp
from benchmarks.contestants.gate import Role
from benchmarks.contestants.jobs import Contributing, FreeGradients, TaskGradients
from benchmarks.training import compute_speeds, describe_model, draft, format_training, sum_up

from btard.errors import ConfigError
from btard.rules.config import RunConfig
from btard.swarm.plain import UNCOMMITTED
from btard.swarm.state import Gradient
from btard.training import build_workload
from btard.training.tasks import DigitsTask
from btard.training.tasks.registry import METHODS

ROOT = Path(__file__).parent.parent.parent
SEED = bytes(range(32))
MODEL = {"task": "digits"}


def say(seconds: float, samples: int) -> dict:
    """Return what a process says of a turn."""
    return {"began": 0.0, "ended": seconds, "cpu_s": 0.5, "rss_bytes": 1000, "samples": samples}


def test_a_validator_contributes_no_samples():
    """Two contributors of three with 32 samples each in half a second are 128 samples per second, not 192."""
    team = Team("btard", Path(), rounds=[[say(0.5, 32), say(0.4, 0), say(0.5, 32)]])
    assert compute_speeds(team) == [128.0]


def test_speeds_are_compared_pair_by_pair():
    """Beside the ratio of times stands that of samples per second, turn by turn; whoever fell out has a reason."""
    ours = Team("btard", Path(), rounds=[[say(1.0, 20)], [say(2.0, 20)]])
    theirs = Team("ddp", Path(), rounds=[[say(1.0, 40)], [say(1.0, 40)]])
    result = sum_up(Contest(Task(1, 10, 0), [ours, theirs]))
    assert result["ratios"]["ddp"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert result["throughput"]["ddp"] == {"median": 0.375, "min": 0.25, "max": 0.5}
    assert (result["results"]["btard"]["samples_per_s"], result["results"]["btard"]["samples"]) == (15.0, 20)
    lost = sum_up(Contest(Task(1, 10, 0), [ours, Team("ddp", Path())], {"ddp": "no gloo here"}))
    assert lost["throughput"]["ddp"] == lost["results"]["ddp"] == {"reason": "no gloo here"}
    text = format_training({"command": "c", "machine": "m", "commit": "x", "model": MODEL, **lost})
    assert "- ddp: no gloo here" in text


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_sides_take_the_same_steps(optimizer: str):
    """Three steps on the same minibatches from the same x_0 lead torch's module and ours to the same parameters."""
    config = draft(2, 0, "digits", {}, optimizer)
    job, task = build_workload(config), DigitsTask()
    x, state = job.initial_parameters(), job.initial_optimizer()
    module = task.module(x)
    theirs = ddp.make_optimizer(config, module)
    for step in range(3):
        seed = bytes([step]) * 32
        x, state = job.step(x, job.gradient(x, seed), state)
        ddp.train(module, task, theirs, seed)
    found = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    assert not torch.allclose(x, job.initial_parameters(), rtol=0, atol=1e-5)
    assert torch.allclose(found, x, rtol=1e-3, atol=1e-5)


def test_a_task_without_a_module_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Nobody else could do the same work: the line says what is missing."""
    methods = dict.fromkeys(METHODS, lambda *words: None)
    monkeypatch.setitem(sys.modules, "users_module", SimpleNamespace(Bare=type("Bare", (), methods)))
    with pytest.raises(ConfigError, match="users_module:Bare lacks batch_size, module, minibatch"):
        describe_model(RunConfig(task="users_module:Bare"))


def test_another_optimizer_is_refused():
    """Where torch does not have what we do, DDP says so rather than do something else."""
    config = draft(2, 0, "digits", {}, "lamb")
    with pytest.raises(ConfigError, match="lamb"):
        ddp.make_optimizer(config, torch.nn.Linear(1, 1))


class Clocks:
    """Turns that only note what happens."""

    def __init__(self) -> None:
        self.noted, self.samples, self.spending = list[str](), 0, self

    def charge(self, line: str, function: Callable) -> Callable:
        """Return a function that notes its line."""
        return lambda *words: (self.noted.append(line), function(*words))[1]

    def end(self) -> None:
        """Note it."""
        self.noted.append("end")

    def begin(self) -> None:
        """Note it."""
        self.noted.append("begin")


def test_a_task_is_computed_within_the_turn():
    """The clocks run when a real gradient is computed, and stand still while noise is drawn."""
    clocks, config = Clocks(), draft(2, 0, "digits", {"batch_size": 2, "holdout_seed": 1}, "sgd")
    job = TaskGradients(config, clocks)
    x = job.initial_parameters()
    assert torch.equal(job.gradient(x, SEED), build_workload(config).gradient(x, SEED))
    assert clocks.noted == ["end", "begin", "gradient of the task"]
    clocks.noted.clear()
    free = FreeGradients(Role(0, 2, 10, 0, ""), clocks)
    free._noise.draw = lambda key: clocks.noted.append("noise")
    free.gradient(x, SEED)
    assert clocks.noted == ["end", "noise", "begin"]


def test_only_what_moves_x_is_counted():
    """A gradient that is committed to counts its batch, one that overflowed does not, and neither is changed."""
    clocks = Clocks()
    conduct = Contributing(clocks, 32)
    good, bad = (Gradient(torch.ones(4), UNCOMMITTED, overflow) for overflow in (False, True))
    assert conduct.commitment(1, good, 2) is good
    assert clocks.samples == 32
    assert conduct.commitment(1, bad, 2) is bad
    assert clocks.samples == 32


@pytest.mark.long
def test_real_processes_train_in_turns(tmp_path: Path):
    """Two peers and two processes of DDP make a step each; in a swarm of two, one contributes and one validates."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.training", "--peers=2", "--rounds=1", "--warm-up=1"]
    done = subprocess.run(
        [*command, "--json", str(path), "--directory", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert list(result) == ["machine", "command", "seed", "commit", "model", "results", "ratios", "throughput"]
    ours, theirs = result["results"]["btard"], result["results"]["ddp"]
    assert (ours["samples"], theirs["samples"]) == (32, 64)
    assert ours["samples_per_s"] > 0
    assert ours["cpu_ms_by_line"]["gradient of the task"] > 0
    assert theirs["samples_per_s"] > 0
    assert result["throughput"]["ddp"]["median"] > 0
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]
