"""From a name and options in the run's configuration to an optimizer."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from btard.errors import ConfigError
from btard.training.optimizer import Optimizer, OptimizerState
from btard.training.reference_optimizers import LAMB, SGD, AdamW
from btard.training.schedules import Schedule
from btard.training.tasks import Option
from btard.training.torch_optimizer import TorchOptimizer

__all__ = ["LAMB", "SGD", "AdamW", "Optimizer", "OptimizerState", "Schedule", "TorchOptimizer", "make_optimizer"]

REFERENCE: Mapping[str, type[SGD] | type[AdamW] | type[LAMB]] = {"sgd": SGD, "adamw": AdamW, "lamb": LAMB}
DEFAULT_RATE: Mapping[str, float] = {"sgd": 0.1, "adamw": 6e-3, "lamb": 1e-2}
SCHEDULE_OPTIONS: Mapping[str, type] = {"lr": float, "warmup_steps": int, "decay": str}
TORCH = "torch:"


def make_optimizer(
    name: str, options: Mapping[str, Option], *, elements: int, segments: Sequence[int], total_steps: int
) -> Optimizer:
    """Return the optimizer ``name`` (sgd, adamw, lamb or torch:NAME) for a vector of ``elements``.

    ``options`` are those of its class, and of the schedule: lr, warmup_steps (a tenth of the
    run), decay (linear). ``segments`` are the lengths of the task's tensors; ``total_steps`` is
    where the decay ends.

    Raises:
        ConfigError: unknown name or option, or a value of the wrong type or out of range.
    """
    if sum(segments) != elements or min(segments, default=0) < 1:
        raise ConfigError(f"the task's segments sum to {sum(segments)}, not to its {elements} elements")
    if name not in REFERENCE and not name.startswith(TORCH):
        raise ConfigError(f"unknown optimizer {name!r}; known: {', '.join(REFERENCE)}, torch:NAME")
    own = {option: value for option, value in options.items() if option not in SCHEDULE_OPTIONS}
    schedule = _make_schedule(name, options, total_steps)
    if name.startswith(TORCH):
        return TorchOptimizer(name.removeprefix(TORCH), schedule, own)
    factory = REFERENCE[name]
    values: dict[str, Any] = _check_options(name, _known_options(factory), own)
    if factory is LAMB:
        values["segments"] = tuple(segments)
    return factory(schedule, **values)


def _make_schedule(name: str, options: Mapping[str, Option], total_steps: int) -> Schedule:
    chosen = {option: value for option, value in options.items() if option in SCHEDULE_OPTIONS}
    default = {"lr": DEFAULT_RATE.get(name, 1e-3), "warmup_steps": total_steps // 10}
    values: dict[str, Any] = default | _check_options(name, SCHEDULE_OPTIONS, chosen)
    return Schedule(total_steps=total_steps, **values)


def _known_options(factory: type) -> Mapping[str, type]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: type(p.default) for p in parameters if p.name not in ("schedule", "segments")}


def _check_options(name: str, known: Mapping[str, type], options: Mapping[str, Option]) -> dict[str, Option]:
    """Return the options with ints as floats where floats are wanted; refuse unknown ones and other types."""
    checked: dict[str, Option] = {}
    for option, value in options.items():
        wanted = known.get(option)
        if wanted is None:
            raise ConfigError(f"optimizer {name} has no option {option!r}; it takes: {', '.join(_listed(known))}")
        converted = float(value) if wanted is float and type(value) is int else value
        if type(converted) is not wanted:
            raise ConfigError(f"optimizer {name}: {option} must be {wanted.__name__}, not {value!r}")
        checked[option] = converted
    return checked


def _listed(known: Mapping[str, type]) -> list[str]:
    return [*SCHEDULE_OPTIONS, *(option for option in known if option not in SCHEDULE_OPTIONS)]
