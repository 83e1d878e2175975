"""Memory and CPU time of processes, as Linux counts them."""

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from btard.swarm.joining.assembly import WRITE_BYTES


class Process(Protocol):
    """A process of ours that has not been waited for; ``subprocess`` and ``multiprocessing`` have them."""

    @property
    def pid(self) -> int | None: ...


def make_memory(directory: Path, size: int) -> float | None:
    """Use ``size`` bytes of memory for a moment, as a file that the system keeps there; return GB/s, if any."""
    block, begun = bytes(WRITE_BYTES), time.perf_counter()
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
    return size / (time.perf_counter() - begun) / 1e9 if size else None


def read_peak_mb() -> dict[str, float]:
    """This process's memory, in 10^6 bytes: what is its own, and what mirrors files."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    fields = {line.split(":")[0]: line.split() for line in lines}
    return {name: int(fields[name][1]) * 1024 / 1e6 for name in ("RssAnon", "RssFile")}


def read_cpu_s(processes: Iterable[Process]) -> float:
    """The CPU seconds that processes have used, from Linux's count of clock ticks; ended threads are in it."""
    fields = [Path(f"/proc/{each.pid}/stat").read_text("ascii").rpartition(")")[2].split() for each in processes]
    return sum(int(user) + int(system) for user, system in (each[11:13] for each in fields)) / os.sysconf("SC_CLK_TCK")
