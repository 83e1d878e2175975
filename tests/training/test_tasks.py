"""Tasks: gradients that depend on (parameters, seed) and on nothing else."""

import sys
import threading
import types

import pytest
import torch
from torch import Tensor, nn

from btard.errors import ConfigError
from btard.training.optimizers import make_optimizer
from btard.training.tasks import (
    DigitsTask,
    Evaluation,
    FlatModule,
    TextTask,
    draw_indices,
    draw_permutation,
    draw_uniform,
    guard_overflow,
    load_task,
)
from btard.training.tasks.text import read_sources

SEED = bytes(range(32))
OTHER = bytes(32)


@pytest.fixture(scope="module", params=["digits", "text"])
def task(request: pytest.FixtureRequest) -> DigitsTask | TextTask:
    """Each shipped task, in its smallest form."""
    return DigitsTask() if request.param == "digits" else TextTask(size="tiny", batch_size=2)


@pytest.fixture
def threads() -> int:
    """The caller's thread count, restored afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_segments_sum_to_elements(task: DigitsTask) -> None:
    """The tensors fill the vector exactly."""
    assert sum(task.segments) == task.elements == task.initial_parameters(SEED).numel()


def test_equal_arguments_give_equal_bits(task: DigitsTask) -> None:
    """Two tasks built alike agree on every bit, and another seed selects another minibatch."""
    x = task.initial_parameters(SEED)
    gradient = task.gradient(x, SEED)
    assert gradient.shape == (task.elements,)
    assert gradient.dtype == torch.float32
    assert torch.equal(gradient, task.gradient(x.clone(), SEED))
    assert not torch.equal(gradient, task.gradient(x, OTHER))


def test_the_module_does_the_same_work(task: DigitsTask, threads: int) -> None:
    """Its gradient on the same minibatch is the task's, and a step of it changes no vector of ours."""
    torch.set_num_threads(1)
    x = task.initial_parameters(SEED)
    module, batch = task.module(x), task.minibatch(SEED)
    batch.loss(module(*batch.inputs)).backward()
    found = torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])
    assert torch.allclose(found, task.gradient(x, SEED), rtol=1e-4, atol=1e-7)
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in module.parameters()]), x)
    with torch.no_grad():
        next(module.parameters()).zero_()
    assert torch.equal(x, task.initial_parameters(SEED))
    assert len(batch.inputs[0]) == task.batch_size


def test_thread_count_changes_nothing(task: DigitsTask, threads: int) -> None:
    """The gradient is computed on one thread, and the caller's count comes back."""
    x = task.initial_parameters(SEED)
    torch.set_num_threads(1)
    alone = task.gradient(x, SEED)
    torch.set_num_threads(4)
    assert torch.equal(alone, task.gradient(x, SEED))
    assert torch.get_num_threads() == 4


def test_memory_alignment_changes_nothing(task: DigitsTask) -> None:
    """Parameters that begin anywhere in a buffer give the same bits."""
    x = task.initial_parameters(SEED)
    buffer = torch.empty(task.elements + 3)
    buffer[3:] = x
    assert torch.equal(task.gradient(x, SEED), task.gradient(buffer[3:], SEED))


def test_grad_mode_and_random_state_change_nothing(task: DigitsTask) -> None:
    """The caller's grad mode is of no effect, its random state is neither read nor moved."""
    x = task.initial_parameters(SEED)
    expected = task.gradient(x, SEED)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(expected, task.gradient(x, SEED))
    assert torch.equal(task.initial_parameters(SEED), x)
    assert torch.equal(before, torch.get_rng_state())
    assert not x.requires_grad


def test_concurrent_calls_do_not_mix(task: DigitsTask) -> None:
    """Threads that share one task each get the gradient of their own parameters."""
    points = [task.initial_parameters(bytes([i]) * 32) for i in range(3)]
    expected = [task.gradient(x, SEED) for x in points]
    found: dict[tuple[int, int], Tensor] = {}

    def work(i: int) -> None:
        for turn in range(5):
            found[i, turn] = task.gradient(points[i], SEED)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 15
    assert all(torch.equal(expected[i], gradient) for (i, _), gradient in found.items())


def test_gradient_points_uphill(task: DigitsTask) -> None:
    """A few steps against the gradient lower the loss on the hold-out."""
    x = task.initial_parameters(SEED)
    before = task.evaluate(x)
    for step in range(10):
        x = x - 0.05 * task.gradient(x, bytes([step]) * 32)
    after = task.evaluate(x)
    assert after.loss < before.loss
    assert 0 <= after.accuracy <= 1


def test_wrong_parameters_are_refused(task: DigitsTask) -> None:
    """A vector of another length or type is the caller's mistake."""
    with pytest.raises(ValueError, match="float32 of shape"):
        task.gradient(torch.zeros(task.elements - 1), SEED)
    with pytest.raises(ValueError, match="float32 of shape"):
        task.gradient(torch.zeros(task.elements, dtype=torch.float64), SEED)


def test_digits_are_learned_in_fifty_steps() -> None:
    """Averaged gradients and AdamW reach 95% on images never seen."""
    task = DigitsTask(batch_size=128)
    optimizer = make_optimizer("adamw", {}, elements=task.elements, segments=task.segments, total_steps=50)
    x, state = task.initial_parameters(SEED), optimizer.initial_state(task.elements)
    for step in range(50):
        x, state = optimizer.step(x, task.gradient(x, bytes([step]) * 32), state)
    accuracy = task.evaluate(x).accuracy
    assert accuracy is not None
    assert accuracy >= 0.95


def test_holdout_is_disjoint_and_30_percent() -> None:
    """No image is both learned and evaluated; the seed moves the split."""
    task = DigitsTask()
    assert len(task._holdout) == 539
    assert sorted(torch.cat([task._holdout, task._train]).tolist()) == list(range(1797))
    assert not torch.equal(task._holdout, DigitsTask(holdout_seed=1)._holdout)


def test_draws_have_known_bits() -> None:
    """The draws are the same on every machine, so their values are fixed here; a change breaks every running swarm."""
    assert draw_uniform(OTHER, 3).tolist() == [-0.3327068090438843, -0.3955475091934204, 0.40926456451416016]
    assert draw_indices(OTHER, 4, 1000).tolist() == [779, 871, 68, 832]
    assert draw_permutation(OTHER, 5).tolist() == [4, 0, 1, 3, 2]


def test_draws_cover_their_range() -> None:
    """Uniform values fill [-1, 1) evenly, indices stay below the population."""
    values = draw_uniform(SEED, 50_000)
    assert -1 <= values.min() < -0.999
    assert 0.999 < values.max() < 1
    assert abs(values.mean()) < 0.01
    assert set(draw_indices(SEED, 1000, 10).tolist()) == set(range(10))
    assert sorted(draw_permutation(SEED, 100).tolist()) == list(range(100))


@pytest.mark.parametrize(
    ("options", "same"), [({}, True), ({"batch_size": 31}, False), ({"holdout_seed": 1}, False)], ids=str
)
def test_fingerprint_covers_what_changes_a_gradient(options: dict[str, int], same: bool) -> None:
    """Two runs have one fingerprint only if their gradients can agree."""
    assert (DigitsTask(**options).fingerprint() == DigitsTask().fingerprint()) is same
    assert len(DigitsTask(**options).fingerprint()) == 32


def test_text_sizes_have_different_fingerprints() -> None:
    """The size of the model is part of the digest."""
    assert TextTask(size="tiny").fingerprint() != TextTask(size="small").fingerprint()


def test_missing_sources_are_named(tmp_path) -> None:
    """A Python without its sources cannot run the task text, and the message says which file is missing."""
    with pytest.raises(ConfigError, match=r"argparse\.py is missing"):
        read_sources(tmp_path)


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the message is the command that installs it."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'btard\[demo\]'"):
        load_task("digits", {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "known: digits, text"),
        ("digits", {"batchsize": 3}, "it takes: batch_size, holdout_seed"),
        ("digits", {"batch_size": 0}, "between 1 and 4096"),
        ("digits", {"batch_size": True}, "must be int"),
        ("digits", {"batch_size": 1.5}, "must be int"),
        ("digits", {"holdout_seed": -1}, "holdout_seed must lie"),
        ("text", {"size": "huge"}, "one of tiny, small, large"),
        ("text", {"batch_size": 10**9}, "between 1 and 4096"),
        ("no_such_module:Task", {}, "is its package installed here"),
        ("os:no_such_thing", {}, "cannot load task"),
        (":Task", {}, "cannot load task"),
        ("os:system", {"command": "true"}, "is not a task"),
        ("pathlib:Path", {}, "is not a task"),
    ],
)
def test_wrong_names_and_options_are_explained(name: str, options: dict[str, int], message: str) -> None:
    """Each mistake gives one line that says what would be right; nothing but a task is ever called."""
    with pytest.raises(ConfigError, match=message):
        load_task(name, options)


class Parabola:
    """A user's task: half the squared distance from ``target``."""

    name, elements, segments = "parabola", 2, (2,)

    def __init__(self, target: float = 1.0) -> None:
        self.target = target

    def initial_parameters(self, seed: bytes) -> Tensor:
        """Return the origin."""
        return torch.zeros(2)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the way from the target."""
        return parameters - self.target

    def evaluate(self, parameters: Tensor) -> Evaluation:
        """Return the loss; accuracy means nothing here."""
        return Evaluation(float((parameters - self.target).square().sum() / 2), None)

    def fingerprint(self) -> bytes:
        """Return a constant."""
        return bytes(32)


def test_a_users_class_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``module:Class`` gives an instance with the options applied; an int serves as a float."""
    module = types.ModuleType("users_module")
    module.Parabola = Parabola
    monkeypatch.setitem(sys.modules, "users_module", module)
    task = load_task("users_module:Parabola", {"target": 3})
    assert task.gradient(torch.zeros(2), SEED).tolist() == [-3.0, -3.0]


def test_modules_with_buffers_are_refused() -> None:
    """Batch norm keeps state outside the vector, where no peer could check it."""
    with pytest.raises(ConfigError, match="buffers"):
        FlatModule(lambda: nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match="no parameters"):
        FlatModule(nn.ReLU)


def test_unused_parameters_and_dropout() -> None:
    """A parameter the loss does not touch has gradient zero, and dropout is off."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.used(x), training=self.training)

    model = FlatModule(Half)
    x = model.initial_parameters(SEED)
    assert model.segments == (2, 1, 3, 1)
    gradient = model.gradient(x, torch.ones(1, 2), loss=Tensor.sum)
    assert gradient.tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "overflow"),
    [(1e30, False), (-1e30, False), (1.1e30, True), (-1.1e30, True), (float("nan"), True), (float("-inf"), True)],
)
def test_overflow_guard(value: float, overflow: bool) -> None:
    """Non-finite values and those beyond 1e30 are never committed."""
    gradient = torch.zeros(1000)
    gradient[617] = value
    assert guard_overflow(gradient) is overflow


def test_nothing_cannot_overflow() -> None:
    """An empty vector is fine."""
    assert guard_overflow(torch.empty(0)) is False
