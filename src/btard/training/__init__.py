"""
What a researcher uses: a trainer for one peer of a run, tasks, optimizers, checkpoints.

Read first: trainer (a peer's life), workload (what it trains), meeting (how it finds the others).
"""

from btard.training.calibration import Measurement, calibrate_run, known_calibration
from btard.training.checkpoints import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from btard.training.meeting import Endpoint, fetch_config
from btard.training.optimizers import Optimizer, OptimizerState, make_optimizer
from btard.training.progress import Continued, Progress, Ready, TrainingEvent, TrainingObserver
from btard.training.tasks import Evaluation, Task, load_task
from btard.training.threads import run_in_asyncio, run_in_thread
from btard.training.trainer import RUN_FILE_KEY, Trainer, TrainingResult, make_directory
from btard.training.workload import TaskWorkload, build_workload, load_workload

__all__ = [
    "RUN_FILE_KEY",
    "Checkpoint",
    "Continued",
    "Endpoint",
    "Evaluation",
    "Measurement",
    "Optimizer",
    "OptimizerState",
    "Progress",
    "Ready",
    "Task",
    "TaskWorkload",
    "Trainer",
    "TrainingEvent",
    "TrainingObserver",
    "TrainingResult",
    "build_workload",
    "calibrate_run",
    "fetch_config",
    "known_calibration",
    "load_checkpoint",
    "load_task",
    "load_workload",
    "make_directory",
    "make_optimizer",
    "newest_checkpoint",
    "run_in_asyncio",
    "run_in_thread",
    "save_checkpoint",
]
