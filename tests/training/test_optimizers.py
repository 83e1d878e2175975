"""Optimizers: torch's results within rounding, the same bits every time, arguments untouched."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.identity import Context, digest
from btard.training.optimizers import Optimizer, OptimizerState, Schedule, make_optimizer
from btard.training.reference_optimizers import compute_norm, compute_root
from btard.training.schedules import compute_half_cosine, compute_power, to_float32
from btard.training.tasks import draw_uniform

SEGMENTS = (40, 8, 3, 1)
D = sum(SEGMENTS)
STEPS = 30


def make(name: str, options: dict[str, Any] | None = None, total_steps: int = STEPS) -> Optimizer:
    """Return an optimizer for the vector of these tests."""
    return make_optimizer(name, options or {}, elements=D, segments=SEGMENTS, total_steps=total_steps)


def aggregate(step: int) -> Tensor:
    """Return an aggregate with elements of very different sizes."""
    return draw_uniform(bytes([step]) * 32, D) * torch.tensor([2.0 ** (k // 3 - 12) for k in range(D)])


def run(optimizer: Optimizer, steps: int = STEPS) -> tuple[Tensor, OptimizerState]:
    """Return parameters and state after some steps from fixed parameters."""
    x, state = draw_uniform(bytes(32), D), optimizer.initial_state(D)
    for step in range(steps):
        x, state = optimizer.step(x, aggregate(step), state)
    return x, state


CASES = [
    ("sgd", {}, "SGD", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}, "SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
    ("adamw", {}, "AdamW", {"weight_decay": 0.01}),
    ("adamw", {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}, "AdamW", {"betas": (0.8, 0.95), "eps": 1e-3}),
    ("adamw", {"weight_decay": 0}, "Adam", {}),
]


@pytest.mark.parametrize(("name", "options", "torch_name", "torch_options"), CASES)
def test_results_are_those_of_torch(
    name: str, options: dict[str, Any], torch_name: str, torch_options: dict[str, Any]
) -> None:
    """Our routines and torch's agree within rounding after 30 steps."""
    ours, _ = run(make(name, {"lr": 0.01, "decay": "none", "warmup_steps": 0, **options}))
    theirs = torch.nn.Parameter(draw_uniform(bytes(32), D))
    reference = getattr(torch.optim, torch_name)([theirs], lr=0.01, foreach=False, **torch_options)
    for step in range(STEPS):
        theirs.grad = aggregate(step)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=2e-5, atol=2e-6)


def test_lamb_follows_its_definition() -> None:
    """One step in float64, tensor by tensor, with the trust ratio of the LAMB paper."""
    x, g = draw_uniform(bytes(32), D), aggregate(0)
    moved, _ = make("lamb", {"lr": 0.1, "weight_decay": 0.5, "warmup_steps": 0}).step(
        x, g, make("lamb").initial_state(D)
    )
    expected = []
    for part, slope in zip(x.double().split(SEGMENTS), g.double().split(SEGMENTS), strict=True):
        update = slope / (slope.abs() + 1e-6) + 0.5 * part
        expected.append(part - 0.1 * part.norm() / update.norm() * update)
    torch.testing.assert_close(moved, torch.cat(expected).float(), rtol=1e-5, atol=1e-6)


def test_lamb_bounds_the_norm_and_moves_what_is_zero() -> None:
    """A tensor larger than the bound counts as the bound; a zero tensor moves at the plain rate."""
    x = torch.cat([torch.full((40,), 1e6), torch.zeros(12)])
    optimizer = make("lamb", {"lr": 1.0, "weight_decay": 0.0, "largest_norm": 2.0, "warmup_steps": 0})
    moved, _ = optimizer.step(x, torch.ones(D), optimizer.initial_state(D))
    assert torch.linalg.vector_norm((x - moved)[:40]).item() == pytest.approx(2.0, rel=0.1)
    torch.testing.assert_close(moved[40:], torch.full((12,), -1.0))


ALL = [
    "sgd",
    "adamw",
    "lamb",
    "torch:SGD",
    "torch:AdamW",
    "torch:NAdam",
    "torch:RAdam",
    "torch:Adagrad",
    "torch:RMSprop",
    "torch:Rprop",
    "torch:Adafactor",
]


@pytest.mark.parametrize("name", ALL)
def test_a_step_leaves_its_arguments_alone(name: str) -> None:
    """A reopened round finds its parameters, aggregate and buffers as they were, and repeats the same bits."""
    optimizer = make(name, {"lr": 0.01})
    x, state = run(optimizer, 3)
    g = aggregate(3)
    before = [tensor.clone() for tensor in (x, g, *state.buffers.values())]
    first, after = optimizer.step(x, g, state)
    again, repeated = optimizer.step(x, g, state)
    assert all(map(torch.equal, before, (x, g, *state.buffers.values())))
    assert torch.equal(first, again)
    assert not torch.equal(first, x)
    assert first.data_ptr() not in {tensor.data_ptr() for tensor in (x, g)}
    assert list(after.buffers) == sorted(repeated.buffers)
    assert all(map(torch.equal, after.buffers.values(), repeated.buffers.values()))
    assert after.step == state.step + 1


@pytest.mark.parametrize("name", ["torch:AdamW", "torch:SGD"])
def test_the_wrapper_is_torchs_optimizer(name: str) -> None:
    """State carried from step to step gives the bits of one optimizer object used throughout."""
    options = {"momentum": 0.9} if name == "torch:SGD" else {}
    ours, state = run(make(name, {"lr": 0.01, "decay": "none", "warmup_steps": 0, **options}))
    theirs = torch.nn.Parameter(draw_uniform(bytes(32), D))
    reference = getattr(torch.optim, name[6:])([theirs], lr=0.01, foreach=False, fused=False, **options)
    for step in range(STEPS):
        theirs.grad = aggregate(step)
        reference.step()
    assert torch.equal(ours, theirs.detach())
    assert state.step == STEPS
    assert state.buffers


KNOWN_BITS = {
    "sgd": "934ea7afe3f6ee03",
    "adamw": "f986ab73b5ac16fc",
    "lamb": "0284a9866a2e1ca0",
}


@pytest.mark.parametrize("name", list(KNOWN_BITS))
def test_bits_are_fixed(name: str) -> None:
    """Parameters and buffers after 30 scheduled steps have the bits they have on every machine."""
    options = {"lr": 1e-3 if name == "adamw" else 0.1, "warmup_steps": 5, "decay": "cosine"} | (
        {"momentum": 0.9} if name == "sgd" else {}
    )
    x, state = run(make(name, options))
    parts = [tensor.numpy().tobytes() for tensor in (x, *state.buffers.values())]
    assert digest(Context.STATE, *parts).hex()[:16] == KNOWN_BITS[name]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_thread_count_and_alignment_change_nothing(name: str) -> None:
    """A long vector cut among threads, or beginning at any address, gives the same bits."""
    length, before = 300_001, torch.get_num_threads()
    buffer = torch.empty(length + 1)
    x, g = buffer[1:].copy_(draw_uniform(bytes(32), length)), draw_uniform(bytes([1]) * 32, length)
    optimizer = make_optimizer(name, {}, elements=length, segments=(300_000, 1), total_steps=2)
    state = optimizer.initial_state(length)
    try:
        torch.set_num_threads(1)
        alone, _ = optimizer.step(x.clone(), g, state)
        torch.set_num_threads(4)
        together, _ = optimizer.step(x, g, state)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


def test_roots_are_correctly_rounded() -> None:
    """Every root is the float32 nearest to the true one: a float64 root, rounded, has no double rounding."""
    bits = np.frombuffer(draw_uniform(bytes(32), 200_000).numpy().tobytes(), dtype="<i4") & 0x7FFFFFFF
    values = torch.from_numpy(bits.copy()).view(torch.float32)
    values = torch.cat([values, values * 1e30, values * 1e-30, values * 1e-42, torch.zeros(1)])
    exact = np.sqrt(values.double().numpy()).astype(np.float32)
    assert compute_root(values).numpy().tobytes() == exact.tobytes()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 1000])
def test_norms_are_norms(length: int) -> None:
    """The fixed order of summation changes nothing but the last bits, also where float32 squares overflow."""
    values = draw_uniform(bytes(32), length) * 1e25
    assert compute_norm(values) == pytest.approx(values.double().norm().item(), rel=1e-12)


def test_schedules() -> None:
    """Warm-up ends at the full rate; the decays end near zero and never leave it afterwards."""
    linear = Schedule(lr=2.0, total_steps=10, warmup_steps=4, decay="linear")
    assert [linear.rate(t) for t in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert linear.rate(7) == 1.0
    cosine = Schedule(lr=2.0, total_steps=10, decay="cosine")
    assert cosine.rate(0) == 2.0
    assert cosine.rate(5) == pytest.approx(1.0, abs=1e-12)
    assert Schedule(lr=2.0, total_steps=10, decay="none").rate(99) == 2.0
    assert Schedule(lr=2.0, total_steps=4, warmup_steps=4, decay="linear").rate(4) == 0.0
    assert linear.rate(11) == 0.0
    assert cosine.rate(10) == cosine.rate(11) == 0.0


def test_the_default_schedule_warms_up_and_decays() -> None:
    """A tenth of the run up to the optimizer's default rate, then straight down to zero."""
    schedule = make("adamw", total_steps=100).schedule
    assert [schedule.rate(t) for t in (0, 9, 10, 55, 100)] == pytest.approx([6e-4, 6e-3, 6e-3, 3e-3, 0])


def test_arithmetic_without_the_c_library() -> None:
    """Our power and cosine are those of the C library within the last places."""
    for k in range(101):
        assert compute_half_cosine(k / 100) == pytest.approx((1 + math.cos(math.pi * k / 100)) / 2, abs=4e-15)
        assert compute_power(0.999, 37 * k) == pytest.approx(0.999 ** (37 * k), rel=1e-12)
    assert to_float32(0.1) == float(np.float32(0.1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adam", {}, "known: sgd, adamw, lamb, torch:NAME"),
        ("adamw", {"momentum": 0.9}, "it takes: lr, warmup_steps, decay, beta1"),
        ("adamw", {"segments": 3}, "no option 'segments'"),
        ("adamw", {"schedule": 3}, "no option 'schedule'"),
        ("adamw", {"beta1": 1.0}, "beta1 must be"),
        ("adamw", {"beta2": float("nan")}, "beta2 must be"),
        ("adamw", {"epsilon": 0.0}, "epsilon must be"),
        ("adamw", {"lr": "fast"}, "lr must be float"),
        ("adamw", {"lr": True}, "lr must be float"),
        ("adamw", {"lr": 0}, "lr must be positive"),
        ("adamw", {"lr": float("nan")}, "lr must be positive"),
        ("adamw", {"decay": "slow"}, "one of none, linear, cosine"),
        ("adamw", {"warmup_steps": 31}, "between 0 and 30"),
        ("adamw", {"weight_decay": -1}, "weight_decay must be"),
        ("sgd", {"nesterov": True}, "needs a momentum"),
        ("lamb", {"largest_norm": 0.0}, "largest_norm must be"),
        ("torch:Adamm", {}, "no optimizer 'Adamm'"),
        ("torch:Optimizer", {}, "no optimizer 'Optimizer'"),
        ("torch:lr_scheduler", {}, "no optimizer 'lr_scheduler'"),
        ("torch:AdamW", {"size": 3}, "cannot train one flat vector"),
        ("torch:AdamW", {"eps": -1.0}, "cannot train one flat vector"),
        ("torch:LBFGS", {}, "cannot train one flat vector"),
        ("torch:SparseAdam", {}, "cannot train one flat vector"),
        ("torch:Muon", {}, "torch"),
    ],
)
def test_wrong_names_and_options_are_explained(name: str, options: dict[str, Any], message: str) -> None:
    """Each mistake is refused before the run begins, in one line."""
    with pytest.raises(ConfigError, match=message):
        make(name, options)


def test_segments_must_fill_the_vector() -> None:
    """Segments that do not sum to the length are a mistake of the task."""
    with pytest.raises(ConfigError, match="sum to 3, not to its 4"):
        make_optimizer("sgd", {}, elements=4, segments=(1, 2), total_steps=1)
