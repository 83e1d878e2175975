"""
Contestants that take turns on one machine: all processes of all of them are there, and one team runs at a time.

A turn is one round: a team is told to go, and the next one is told when all its processes are done. So whatever else
the machine does meanwhile falls on all teams, and rounds of the same number make pairs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.report import Result, compute_median, compute_quantile, compute_ratios

ROOT = Path(__file__).parent.parent
OURS = "btard"
RIVALS = ("gloo", "hivemind", "plain")
HIVEMIND_PYTHON = ROOT / ".nox" / "hivemind" / "bin" / "python"
PATIENCE_S = 600.0
"""How long a round, or the start of a team, may take."""
LAST_WORDS = 400
REST = "all else: event loop, Python, memory"


class TeamFailed(Exception):
    """A team cannot take part, or not any more; the message is the reason."""


@dataclass(frozen=True)
class Task:
    """What every team has to do: reduce vectors of ``elements`` float32, one for each of ``peers`` processes.

    Where there is a ``run_file`` they are the gradients of what it says to train, which is part of a turn.
    """

    peers: int
    elements: int
    seed: int
    run_file: Path | None = None


@dataclass
class Team:
    """The processes of one contestant, by rank, and the rounds that they have done: what each process said of each."""

    name: str
    directory: Path
    processes: "list[subprocess.Popen[str]]" = field(default_factory=list)
    rounds: list[list[dict[str, Any]]] = field(default_factory=list)

    def start(self, task: Task, python: Path) -> None:
        """Start the processes and let them meet.

        Raises:
            TeamFailed: they cannot.
        """
        if not python.exists():
            raise TeamFailed(f"no Python at {python}; make its environment with: nox -s {self.name}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _find_path()}
        for rank in range(task.peers):
            words = {"rank": rank, "peers": task.peers, "elements": task.elements, "seed": task.seed}
            options = [f"--{name}={value}" for name, value in words.items()]
            options += [f"--run-file={task.run_file}"] if task.run_file else []
            command = [str(python), "-m", f"benchmarks.contestants.{self.name}", *options]
            with (self.directory / f"errors-{rank}").open("wb") as errors:
                process = subprocess.Popen(
                    [*command, f"--directory={self.directory}"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                    text=True, env=environment, cwd=ROOT, start_new_session=True,
                )  # fmt: skip
            self.processes.append(process)
        with self._patience():
            places = [said["place"] for said in self._hear()]
            self._tell(places=places)
            self._hear()

    def play(self) -> None:
        """Do one round.

        Raises:
            TeamFailed: a process ended, or it took too long.
        """
        with self._patience():
            self._tell(go=True)
            self.rounds.append(self._hear())
            self._tell(over=True)
            self._hear()

    def _tell(self, **words: Any) -> None:
        line = json.dumps(words) + "\n"
        for process in self.processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # its end is noticed when it is to be heard
                process.stdin.write(line)
                process.stdin.flush()

    def _hear(self) -> list[dict[str, Any]]:
        """Return what every process says next."""
        said: list[dict[str, Any]] = []
        for rank, process in enumerate(self.processes):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise TeamFailed(f"process {rank} of {self.name} ended: {self._read_last_words(rank)}")
            said.append(json.loads(line))
        return said

    def _read_last_words(self, rank: int) -> str:
        words = (self.directory / f"errors-{rank}").read_text("utf-8", errors="replace").strip()
        return " ".join(words[-LAST_WORDS:].split()) or "it said nothing"

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """End the processes if the body takes too long: whoever waits for them goes on."""
        timer = threading.Timer(PATIENCE_S, self.stop)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def stop(self) -> None:
        """End all processes, and what they started."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def durations(self) -> list[float]:
        """Return the milliseconds of each round: from the first process that began to the last that was done."""
        return [
            1e3 * (max(said["ended"] for said in done) - min(said["began"] for said in done)) for done in self.rounds
        ]


def _find_path() -> str:
    """What a rival's Python needs to find its program, and ours to find what is tested here."""
    return os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass
class Contest:
    """All teams, those that failed with their reasons."""

    task: Task
    teams: list[Team] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    is_interrupted: bool = False

    def play(self, warm_up: int, rounds: int) -> None:
        """Let all teams play in turns; the first ``warm_up`` rounds do not count. Ctrl-C ends it early."""
        try:
            for number in range(-warm_up, rounds):
                for team in [team for team in self.teams if team.name not in self.reasons]:
                    self._try(team, team.play)
                if number < 0:
                    for team in self.teams:
                        team.rounds.clear()
                self._show(number + 1, rounds)
        except KeyboardInterrupt:
            self.is_interrupted = True
            print("interrupted: what there is", file=sys.stderr)

    def enter(self, team: Team, python: Path) -> None:
        """Let a team come in, or note why it cannot."""
        print(f"{team.name}: starting {self.task.peers} processes ...", file=sys.stderr, flush=True)
        self.teams.append(team)
        self._try(team, lambda: team.start(self.task, python))

    def _try(self, team: Team, act: Any) -> None:
        try:
            act()
        except TeamFailed as failure:
            self.reasons[team.name] = str(failure)
            print(f"{team.name}: {failure}", file=sys.stderr, flush=True)
            team.stop()

    def _show(self, number: int, rounds: int) -> None:
        done = [f"{team.name} {team.durations()[-1]:.0f} ms" for team in self.teams if team.rounds]
        where = f"round {number} of {rounds}" if number > 0 else "warming up"
        print(f"{where}: {', '.join(done)}", file=sys.stderr, flush=True)

    def sum_up(self) -> Result:
        """Return ``results`` and ``ratios`` of all that has been played."""
        results = {team.name: self._sum_up(team) for team in self.teams}
        ours = next(team for team in self.teams if team.name == OURS)
        ratios = {
            team.name: compute_ratios(ours.durations(), team.durations()) or {"reason": self._excuse(team)}
            for team in self.teams
            if team is not ours
        }
        return {"results": results, "ratios": ratios}

    def _sum_up(self, team: Team) -> Result:
        return sum_up(team.rounds, team.durations()) if team.rounds else {"reason": self._excuse(team)}

    def _excuse(self, team: Team) -> str:
        return self.reasons.get(team.name, "it was interrupted before its first round")


def sum_up(rounds: Sequence[Sequence[Mapping[str, Any]]], durations: Sequence[float]) -> Result:
    """Return the figures of a team: times in milliseconds, the rest per peer and round, medians over rounds."""

    def median(name: str) -> float | None:
        means = [fmean(said[name] for said in done) for done in rounds if all(name in said for said in done)]
        return compute_median(means) if means else None

    return {
        "median_ms": round(compute_median(durations), 2),
        "p10_ms": round(compute_quantile(durations, 0.1), 2),
        "p90_ms": round(compute_quantile(durations, 0.9), 2),
        "cpu_s_per_peer": round(median("cpu_s") or 0.0, 4),
        "bytes_data": to_whole(median("bytes_data")),
        "bytes_protocol": to_whole(median("bytes_protocol")),
        "rss_bytes": to_whole(median("rss_bytes")),
        "system_s_per_peer": round(median("system_s") or 0.0, 4),
        "page_faults": to_whole(median("page_faults")),
        "phases": {name: round(value, 2) for name, value in average(rounds, "phases").items()},
        "cpu_ms_by_line": sort_lines(average(rounds, "spending"), median("cpu_s") or 0.0),
    }


def sort_lines(seconds: Mapping[str, float], total_s: float) -> dict[str, float]:
    """Return the milliseconds of every line, the largest first, and last what belongs to none of them."""
    if not seconds:
        return {}
    lines = {name: round(1e3 * value, 2) for name, value in sorted(seconds.items(), key=lambda item: -item[1])}
    return {**lines, REST: round(1e3 * (total_s - sum(seconds.values())), 2)}


def to_whole(value: float | None) -> int | None:
    """Return a count without its fraction."""
    return None if value is None else round(value)


def average(rounds: Sequence[Sequence[Mapping[str, Any]]], table: str) -> dict[str, float]:
    """Return the entries of a table that processes told: the mean over processes, of that the median over rounds."""
    names = list(dict.fromkeys(name for done in rounds for said in done for name in said.get(table, ())))
    return {
        name: compute_median(fmean(said.get(table, {}).get(name, 0.0) for said in done) for done in rounds)
        for name in names
    }


@contextmanager
def open_contest(
    task: Task, names: Sequence[str], pythons: Mapping[str, Path], place: Path | None = None
) -> Iterator[Contest]:
    """Yield a contest of ours and of ``names``, with files under ``place``; no process and no file outlives it."""
    contest = Contest(task)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        directory = Path(tempfile.mkdtemp(prefix="btard-round-", dir=place))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for name in (OURS, *names):
            team = Team(name, directory / name)
            team.directory.mkdir()
            stack.callback(team.stop)
            contest.enter(team, pythons.get(name, Path(sys.executable)))
        yield contest
