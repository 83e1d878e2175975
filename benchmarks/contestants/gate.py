"""
How a contestant's process takes turns: lines of JSON with the benchmark that started it.

It says where it listens, is told where all the others do, and from then on says that it is ready for a round, waits
until it may go, and says what the round took. Nothing but the standard library is needed here: a rival may
live in an environment of its own.
"""

import argparse
import json
import os
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True)
class Role:
    """Which of how many peers this process is, and what it reduces: ``elements`` float32 drawn from ``seed``.

    Or the gradients of what ``run_file``, if there is one, says to train: then ``elements`` are its parameters.
    """

    rank: int
    peers: int
    elements: int
    seed: int
    directory: str
    run_file: str = ""


def parse_role() -> Role:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="one process of a contestant; started by benchmarks.contest")
    for name in ("rank", "peers", "elements", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--directory", required=True, help="where all processes of the contestant may leave files")
    parser.add_argument("--run-file", default="", help="what to train; else gradients are noise")
    return Role(**vars(parser.parse_args()))


class Gate:
    """The two pipes to the benchmark. Whatever libraries print goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._wall_s = self._cpu_s = 0.0
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self.companion = 0
        """The process that works for this one, if there is one: its time and memory count as ours."""

    def say(self, **words: Any) -> None:
        """Send one line."""
        self._out.write(json.dumps(words) + "\n")
        self._out.flush()

    def _listen(self) -> None:
        """Take in lines until there will be no more, then end the process, whatever it does: nobody waits for it."""
        for line in sys.stdin:
            self._heard.put(json.loads(line))
        os._exit(0)

    def hear(self) -> dict[str, Any]:
        """Return the next line."""
        return self._heard.get()

    def meet(self, place: str = "") -> list[str]:
        """Say where we listen; return where all do, by rank."""
        self.say(place=place)
        places: list[str] = self.hear()["places"]
        return places

    def await_turn(self) -> None:
        """Return when the next round may begin; its clocks run from here."""
        self.say(ready=True)
        self.hear()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._wall_s, self._cpu_s = time.perf_counter(), self._read_cpu()

    def end_turn(self, **figures: Any) -> None:
        """Say what the round took until now, and return once it is over for all."""
        end_s, cpu_s, usage = time.perf_counter(), self._read_cpu() - self._cpu_s, self._usage
        now = resource.getrusage(resource.RUSAGE_SELF)
        kernel = {"system_s": now.ru_stime - usage.ru_stime, "page_faults": now.ru_minflt - usage.ru_minflt}
        rss = read_rss("self") + (read_rss(str(self.companion)) if self.companion else 0)
        self.say(began=self._wall_s, ended=end_s, cpu_s=cpu_s, rss_bytes=rss, **kernel, **figures)
        self.hear()

    def _read_cpu(self) -> float:
        return time.process_time() + (read_cpu_of(self.companion) if self.companion else 0.0)


def read_rss(process: str) -> int:
    """Return the bytes of a process that are in memory now, shared libraries included."""
    words = Path(f"/proc/{process}/statm").read_text("ascii").split()
    return int(words[1]) * resource.getpagesize()


def read_cpu_of(process: int) -> float:
    """Return the CPU seconds of another process, to a hundredth."""
    words = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
