"""Models with their data: what a run trains, as gradients that anyone can recompute."""

from btard.training.tasks.digits import DigitsTask
from btard.training.tasks.draws import draw_indices, draw_permutation, draw_uniform
from btard.training.tasks.flat import FlatModule, one_thread
from btard.training.tasks.overflow import guard_overflow
from btard.training.tasks.registry import load_task
from btard.training.tasks.task import Evaluation, Minibatch, ModuleTask, Option, Task
from btard.training.tasks.text import TextTask

__all__ = [
    "DigitsTask",
    "Evaluation",
    "FlatModule",
    "Minibatch",
    "ModuleTask",
    "Option",
    "Task",
    "TextTask",
    "draw_indices",
    "draw_permutation",
    "draw_uniform",
    "guard_overflow",
    "load_task",
    "one_thread",
]
