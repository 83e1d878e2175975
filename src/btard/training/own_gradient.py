"""The watch over our own task: a gradient that is not finite is our problem, not the swarm's."""

from collections.abc import Callable

import trio

from btard.errors import ConfigError
from btard.swarm.conduct import Conduct
from btard.swarm.events import GradientOverflow
from btard.swarm.state import Gradient

PATIENCE_ROUNDS = 10
"""So many rounds in a row without a finite gradient end the training."""


class WatchedConduct(Conduct):
    """Honest conduct that counts its own overflows; ``report`` is called in trio's thread."""

    def __init__(self, report: Callable[[GradientOverflow], None]) -> None:
        self._report = report
        self._in_a_row = 0

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the gradient as it is; called in a worker thread.

        Raises:
            ConfigError: the task yields no finite gradient any more.
        """
        self._in_a_row = self._in_a_row + 1 if gradient.overflow else 0
        if self._in_a_row:
            trio.from_thread.run_sync(self._report, GradientOverflow(round_number, self._in_a_row))
        if self._in_a_row >= PATIENCE_ROUNDS:
            raise ConfigError(
                f"the task's gradient was not finite {PATIENCE_ROUNDS} rounds in a row; "
                "lower the learning rate or look for a division by zero in the task"
            )
        return super().commitment(round_number, gradient, chunk_size)
