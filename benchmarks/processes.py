"""Real ``btard-peer join`` processes for benchmarks: started, killed, started again, heard through their logs."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from btard.cli.demo_plan import OUTPUT, Plan, Player, Settings, make_command, make_plan
from btard.cli.leash import GO

Event = dict[str, Any]
POLL_S = 0.05
PATIENCE_S = 300.0


@dataclass
class Peer:
    """One peer through all its processes; ``events`` is all that it has logged, each line once."""

    plan: Plan
    player: Player
    process: "subprocess.Popen[bytes] | None" = None
    events: list[Event] = field(default_factory=list)
    starts: int = 0
    _read: int = 0

    def start(self) -> None:
        """Start a process on the peer's directory."""
        self.starts += 1
        command = make_command(self.plan, self.player)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.player.directory / OUTPUT).open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def let_go(self) -> None:
        """Let a stranger begin, which waits with its programs loaded."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(GO)
        self.process.stdin.flush()

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End the process as Ctrl-C would; return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE_S)

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def listen(self) -> None:
        """Read what was appended to the log; half a line waits for its other half."""
        if not self.player.log.exists():
            return
        with self.player.log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self.events += [json.loads(line) for line in whole.splitlines() if line.strip()]

    def of(self, name: str) -> list[Event]:
        """Its events of one kind, in order."""
        return [event for event in self.events if event["event"] == name]

    @property
    def round(self) -> int:
        """The newest round that it finished."""
        return int(self.of("round")[-1]["round"]) if self.of("round") else 0


@dataclass
class Swarm:
    """The peers of one run."""

    plan: Plan
    peers: list[Peer]

    def listen(self) -> None:
        """Read all logs."""
        for peer in self.peers:
            peer.listen()

    def listen_until(self, moment: float) -> None:
        """Listen until a moment of the monotonic clock."""
        while time.monotonic() < moment:
            time.sleep(POLL_S)
            self.listen()

    def wait_for(self, what: str, is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Listen until something is so.

        Raises:
            TimeoutError: it never was.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}; see {self.plan.directory}")
            time.sleep(POLL_S)
            self.listen()


@contextmanager
def run_swarm(settings: Settings) -> Iterator[Swarm]:
    """Yield a swarm whose processes run, strangers waiting; afterwards none runs, and its files go unless it failed."""
    directory = Path(tempfile.mkdtemp(prefix="btard-bench-"))
    plan = make_plan(settings, directory)
    swarm = Swarm(plan, [Peer(plan, player) for player in plan.players])
    members = [peer for peer in swarm.peers if not peer.player.is_stranger]
    try:
        for peer in swarm.peers:
            peer.start()
        swarm.wait_for("the first round", lambda: all(peer.round >= 1 for peer in members))
        yield swarm
    finally:
        for peer in swarm.peers:
            if peer.is_running:
                peer.kill()
    shutil.rmtree(directory)
