"""
torch's ``DistributedDataParallel`` over gloo: the same module, loss and batches, without encryption and checks.

The optimizer is torch's own of the same kind with the same options; gradients go out while the rest is computed.
"""

import os
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.contestants.gate import Gate, Role, parse_role
from btard.errors import ConfigError
from btard.identity import Context, digest
from btard.rules.config import RunConfig, parse_run_file
from btard.training.tasks import ModuleTask, load_task

OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
CONSTANT = {"warmup_steps": 0, "decay": "none"}
"""The only schedule that torch's optimizers have by themselves."""


def make_optimizer(config: RunConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimizer of the kind that a run names; its other options are ours by default.

    Raises:
        ConfigError: torch has none of that kind, or the run's learning rate changes.
    """
    options = dict(config.optimizer_options)
    rate = options.pop("lr", None)
    if config.optimizer not in OPTIMIZERS or rate is None or options != CONSTANT:
        raise ConfigError(f"torch has no {config.optimizer} that does the same with {options} and lr {rate}")
    return OPTIMIZERS[config.optimizer](module.parameters(), lr=float(rate))


def make_seed(role: Role, number: int) -> bytes:
    """Return what selects the minibatch of a process in a round."""
    return digest(Context.EXPAND, b"ddp", f"{role.seed}/{number}/{role.rank}".encode())


def train(module: nn.Module, task: ModuleTask, optimizer: torch.optim.Optimizer, seed: bytes) -> None:
    """Make one step on one minibatch."""
    inputs, loss = task.minibatch(seed)
    optimizer.zero_grad()
    loss(module(*inputs)).backward()
    optimizer.step()


def compete(role: Role, gate: Gate) -> None:
    """Train one step a turn."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    config = parse_run_file(Path(role.run_file).read_text("utf-8"))
    task = cast("ModuleTask", load_task(config.task, config.task_options))
    store = f"file://{role.directory}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=role.rank, world_size=role.peers)
    x = task.initial_parameters(digest(Context.RUN_SEED, str(config.seed).encode()))
    module = DistributedDataParallel(task.module(x), gradient_as_bucket_view=True)
    step = partial(train, module, task, make_optimizer(config, module))
    gate.meet()
    number = 0
    while True:
        number += 1
        gate.await_turn()
        step(make_seed(role, number))
        gate.end_turn(samples=task.batch_size)


if __name__ == "__main__":
    torch.set_num_threads(1)
    compete(parse_role(), Gate())
