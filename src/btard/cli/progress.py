"""What ``join`` shows to people: a line that moves on a terminal, plain lines everywhere else."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from btard.cli.solving import describe_solving
from btard.identity import PeerId, short
from btard.rules.config import RunConfig
from btard.swarm.events import (
    Admitted,
    Departed,
    DisputeOpened,
    GradientDiffers,
    GradientOverflow,
    Halted,
    Joining,
    Promoted,
    Recovered,
    RunStarted,
    Sampled,
    Stranded,
)
from btard.swarm.joining.fetching_state import Progress as Transfer
from btard.training import Continued, Evaluation, Ready, TrainingEvent, TrainingResult
from btard.training import Progress as RoundProgress
from btard.training.solving import Solving

PLAIN_EVERY = 10
"""Reports on the way into a run, one a second or a round, for each plain line."""


class Display:
    """Shows a training on standard output; a bar only where that is a terminal."""

    def __init__(self, config: RunConfig, console: Console | None = None) -> None:
        self._config = config
        self._console = console or Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("round"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("waiting for the others", total=config.rounds)
        self._result, self._passed = "", 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, event: TrainingEvent) -> None:
        """Show an event."""
        if isinstance(event, RoundProgress):
            self._show_round(event)
        elif isinstance(event, Solving | Transfer | Sampled):
            self._show_passing(event)
        else:
            self._console.print(describe(event), markup=False)

    def _show_passing(self, event: Solving | Transfer | Sampled) -> None:
        """Show what comes every second or round: in the bar, or some of it as lines."""
        self._bar.update(self._task, description=describe(event))
        if not self._console.is_terminal and self._passed % PLAIN_EVERY == 0:
            self._console.print(describe(event), markup=False)
        self._passed += 1

    def _show_round(self, event: RoundProgress) -> None:
        if event.evaluation is not None:
            self._result = f", {format_evaluation(event.evaluation)}"
        figures = f"{1000 * event.wall_s:.0f} ms, {len(event.roster)} peers{self._result}"
        self._bar.update(self._task, completed=event.round, description=figures)
        if not self._console.is_terminal:
            self._console.print(f"round {event.round}/{self._config.rounds}: {figures}", markup=False)

    def finish(self, result: TrainingResult) -> None:
        """Show how the training ended, and where its result is."""
        how = "finished" if result.is_finished else "stopped"
        line = f"{how} after {result.rounds} rounds"
        if result.evaluation is not None:
            line += f": {format_evaluation(result.evaluation)}"
        self._console.print(line, markup=False)
        if result.checkpoint is not None:
            self._console.print(f"checkpoint: {result.checkpoint}", markup=False)


def describe(event: TrainingEvent) -> str:
    """Return an event in words; peers by their first eight hex digits."""
    match event:
        case Ready(peer, addresses, gradient_ms):
            how = f"listens at {', '.join(map(str, addresses))}" if addresses else "only dials out"
            line = f"peer {short(peer)} {how}; a gradient takes {gradient_ms} ms"
        case RunStarted(roster):
            line = f"training begins with {len(roster)} peers: {_names(roster)}"
        case Continued(number, _, roster):
            line = f"resuming round {number} with {len(roster)} peers: {_names(roster)}"
        case RoundProgress():
            line = f"round {event.round} is done"
        case Departed(peer, number, _, kind, cause):
            line = f"round {number}: {kind} of {short(peer)}, cause: {cause}"
        case DisputeOpened(kind, number, accused, accuser):
            by = f" by {short(accuser)}" if accuser else ""
            line = f"round {number}: {kind} dispute, {short(accused)} is accused{by}"
        case Admitted() | Sampled() | Promoted() | Solving() | Transfer():
            line = _describe_joining(event)
        case _:
            line = _describe_trouble(event)
    return line


def _describe_joining(event: Joining | Solving | Transfer) -> str:
    match event:
        case Admitted(number):
            return f"round {number}: admitted as a candidate; probation begins"
        case Sampled(number, worked, needed):
            return f"round {number}: worked as a candidate; {worked} of {needed} rounds count so far"
        case Promoted(number):
            return f"probation is over: a member from round {number} on"
        case Transfer(done, total, rate):
            return f"fetching the state: {done / 1e6:.1f} of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
        case Solving():
            return describe_solving(event)


Trouble = Halted | Recovered | Stranded | GradientOverflow | GradientDiffers


def _describe_trouble(event: Trouble) -> str:
    match event:
        case Halted(stage, missing):
            return f"halted at {stage}; missing: {_names(missing)}"
        case Recovered(number, removed, banned, wall_s):
            return f"round {number}: recovered in {wall_s:.1f} s; out: {_names((*removed, *banned))}"
        case GradientOverflow(number, in_a_row):
            return f"round {number}: our gradient is not finite ({in_a_row} in a row)"
        case GradientDiffers(number, is_restored):
            how = "the others gave back" if is_restored else "nobody gives back"
            return f"round {number}: computed again, our gradient differs; {how} the one that we had committed to"
        case Stranded(number, _, reason):
            return f"round {number}: the swarm is halted: {reason}"


def _names(peers: Sequence[PeerId]) -> str:
    return ", ".join(map(short, peers)) or "nobody"


def format_evaluation(evaluation: Evaluation) -> str:
    """Return loss and, where it means something, accuracy."""
    accuracy = "" if evaluation.accuracy is None else f", accuracy {100 * evaluation.accuracy:.1f}%"
    return f"loss {evaluation.loss:.4f}{accuracy}"
