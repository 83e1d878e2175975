"""The how-to's task works as printed."""

import re
from pathlib import Path
from typing import Any

import torch

from btard.training.optimizers import make_optimizer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-task.md"


def test_the_printed_task_learns() -> None:
    """The page's code runs in order, its assertion holds, the task learns what it says, and others can train it."""
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), names)  # noqa: S102 - our own page
    task, x = names["task"], names["x"]
    optimizer = make_optimizer("adamw", {"lr": 0.02}, elements=task.elements, segments=task.segments, total_steps=400)
    state = optimizer.initial_state(task.elements)
    for step in range(400):
        x, state = optimizer.step(x, task.gradient(x, step.to_bytes(32, "little")), state)
    assert task.evaluate(x).accuracy > 0.9
    comparable = names["ComparableSpirals"]()
    module, batch = comparable.module(x), comparable.minibatch(bytes(32))
    batch.loss(module(*batch.inputs)).backward()
    found = torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])
    assert torch.allclose(found, task.gradient(x, bytes(32)), atol=1e-6)
    assert comparable.batch_size == len(batch.inputs[0])
