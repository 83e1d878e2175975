"""The bridge from a task and an optimizer to what the swarm trains."""

from typing import cast

from torch import Tensor

from btard.errors import Refused
from btard.identity import Context, digest
from btard.rules.config import RunConfig
from btard.swarm import workload
from btard.training.optimizers import Optimizer, OptimizerState, make_optimizer
from btard.training.tasks import Evaluation, Task, load_task


class TaskWorkload:
    """A task and an optimizer as one deterministic job; ``seed`` chooses the initial parameters."""

    def __init__(self, task: Task, optimizer: Optimizer, seed: int) -> None:
        self.task, self._optimizer = task, optimizer
        self._seed = digest(Context.RUN_SEED, str(seed).encode())
        self.elements = task.elements

    def initial_parameters(self) -> Tensor:
        """Return x_0, shape (D,), the same at every peer."""
        return self.task.initial_parameters(self._seed)

    def initial_optimizer(self) -> OptimizerState:
        """Return the optimizer's memory before the first step."""
        return self._optimizer.initial_state(self.elements)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the gradient of the minibatch that ``seed`` selects, shape (D,)."""
        return self.task.gradient(parameters, seed)

    def step(
        self, parameters: Tensor, aggregate: Tensor, state: workload.OptimizerState
    ) -> tuple[Tensor, OptimizerState]:
        """Return new parameters and memory, bit-equal on every machine; the arguments stay as they are.

        ``state`` is one that this job made.
        """
        return self._optimizer.step(parameters, aggregate, cast("OptimizerState", state))

    def evaluate(self, parameters: Tensor) -> Evaluation:
        """Return loss and accuracy on the task's hold-out."""
        return self.task.evaluate(parameters)


def build_workload(config: RunConfig) -> TaskWorkload:
    """Return the job that a configuration names, whatever its ``elements`` and ``dataset`` say.

    Raises:
        ConfigError: unknown task or optimizer, options they do not take, or a package is missing.
    """
    task = load_task(config.task, config.task_options)
    optimizer = make_optimizer(
        config.optimizer,
        config.optimizer_options,
        elements=task.elements,
        segments=task.segments,
        total_steps=config.rounds,
    )
    return TaskWorkload(task, optimizer, config.seed)


def load_workload(config: RunConfig) -> TaskWorkload:
    """Return the job of a run, after checking that model and data here are those of the run.

    Raises:
        ConfigError: as ``build_workload``.
        Refused: this machine's model or data differ from the run's.
    """
    job = build_workload(config)
    if job.elements != config.elements:
        raise Refused(
            f"task {config.task} has {job.elements} parameters here, {config.elements} in the run; "
            "install the version of the task that the founder uses"
        )
    if job.task.fingerprint().hex() != config.dataset:
        raise Refused(
            f"the data of task {config.task} differ from the run's; install the versions of Python, "
            "scikit-learn or your own package that the founder uses"
        )
    return job
