"""Real `btard-peer join` processes on loopback, each in a directory of its own."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PATIENCE_S = 100.0


@dataclass
class Process:
    """One running peer and the events it has logged."""

    directory: Path
    popen: "subprocess.Popen[bytes]"
    command: Sequence[str]

    @property
    def log(self) -> Path:
        return self.directory / "events.jsonl"

    def events(self, name: str) -> list[dict]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        parsed = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in parsed if event["event"] == name]

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)

    def restart(self) -> "Process":
        """Start the same command again, on the same directory."""
        return launch(self.directory, self.command)


def run_command(arguments: Sequence[str], cwd: Path) -> str:
    """Return the output of one btard-peer command that must succeed."""
    command = [sys.executable, "-m", "btard.cli", *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def start_swarm(
    directory: Path,
    size: int,
    rounds: int,
    port: int,
    settings: Sequence[str] = (),
    extra: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> list[Process]:
    """Found a run at ``port`` and start its peers, some with ``extra`` options; the first is the founder."""
    options = ["--peers", str(size), "--rounds", str(rounds), "--identity", "founder.key"]
    options += ["--listen", f"127.0.0.1:{port}", "--out", "run.toml"]
    options += [argument for setting in ("identity_bits=8", *settings) for argument in ("--set", setting)]
    output = run_command(["new", *options], directory)
    ticket = next(line for line in output.splitlines() if line.startswith("btard1-"))
    return [start_peer(directory, index, ticket, port, extra.get(index, ())) for index in range(size)]


def start_peer(directory: Path, index: int, ticket: str, port: int, extra: Sequence[str] = ()) -> Process:
    """Start one peer; its output goes to a file in its directory."""
    home = directory / f"peer-{index}"
    arguments = ["join", ticket, "--data-dir", str(home), "--json-log", str(home / "events.jsonl"), *extra]
    if index == 0:
        arguments += ["--found", "run.toml", "--identity", "founder.key", "--listen", f"127.0.0.1:{port}"]
    home.mkdir()
    return launch(home, [sys.executable, "-m", "btard.cli", *arguments])


def launch(home: Path, command: Sequence[str]) -> Process:
    """Run a peer's command; its output goes to a file in its directory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (home / "output.txt").open("ab") as output:
        popen = subprocess.Popen(command, cwd=home.parent, stdout=output, stderr=subprocess.STDOUT, env=environment)
    return Process(home, popen, command)


def stop_all(processes: Sequence[Process]) -> None:
    """End what still runs."""
    for process in processes:
        process.kill()
        process.popen.wait()


def find_free_port() -> int:
    """A port that TCP and UDP both have free now."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return int(port)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition about other processes; real time is the subject here."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        select.select([], [], [], 0.1)
