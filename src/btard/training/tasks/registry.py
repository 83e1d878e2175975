"""
From a name in the run's configuration to a task.

The name may come from a stranger's run file, so a name of the form ``module:Class`` must not become
a way to call anything: only a class that has the methods of a task is ever called.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import cast

from btard.errors import ConfigError
from btard.training.tasks.digits import DigitsTask
from btard.training.tasks.task import Option, Task
from btard.training.tasks.text import TextTask

KNOWN: Mapping[str, Callable[..., Task]] = {"digits": DigitsTask, "text": TextTask}
METHODS = ("initial_parameters", "gradient", "evaluate", "fingerprint")


def load_task(name: str, options: Mapping[str, Option]) -> Task:
    """Return the task ``name``, a known one or a user's ``module:Class``, built with ``options``.

    Raises:
        ConfigError: no such task, options it does not take, or a package it needs is missing.
    """
    factory = KNOWN.get(name) or _import_factory(name)
    parameters = inspect.signature(factory).parameters
    for option, value in options.items():
        if option not in parameters:
            raise ConfigError(f"task {name} has no option {option!r}; it takes: {', '.join(parameters) or 'none'}")
        _check_type(name, parameters[option], value)
    try:
        return factory(**options)
    except TypeError as error:
        raise ConfigError(f"task {name} cannot be built from options {dict(options)}: {error}") from error


def _check_type(name: str, parameter: inspect.Parameter, value: Option) -> None:
    """Refuse a value whose type is not that of the option's default (an int passes as a float)."""
    wanted = type(parameter.default)
    if parameter.default is parameter.empty or wanted is type(value) or (wanted is float and type(value) is int):
        return
    raise ConfigError(f"task {name}: option {parameter.name} must be {wanted.__name__}, not {value!r}")


def _import_factory(name: str) -> Callable[..., Task]:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"unknown task {name!r}; known: {', '.join(KNOWN)}, or your own as module:Class")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot load task {name!r}: {error}; is its package installed here?") from error
    if not (inspect.isclass(factory) and all(callable(getattr(factory, method, None)) for method in METHODS)):
        raise ConfigError(f"{name!r} is not a task: it must be a class with the methods {', '.join(METHODS)}")
    return cast("Callable[..., Task]", factory)
