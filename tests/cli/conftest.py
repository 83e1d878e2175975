"""A command line to call: its exit code, its output, and the runs that it makes."""

import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from btard.cli.app import run
from btard.cli.files import read_run_file
from btard.identity import Identity
from btard.net import Address, Hub, TcpTransport, Terms, open_tcp
from btard.rules.config import RunConfig
from btard.wire import Ticket, parse_ticket


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The only line on standard error, without the program's name."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("btard-peer: ")
        return lines[0].removeprefix("btard-peer: ")


Call = Callable[..., Ended]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs btard-peer in this process."""

    def call(*arguments: object) -> Ended:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(int(code), captured.out, captured.err)

    return call


@dataclass(frozen=True)
class Founded:
    """A run that ``new`` has made in ``directory``."""

    directory: Path
    word: str

    @property
    def ticket(self) -> Ticket:
        """The ticket."""
        return parse_ticket(self.word)

    @property
    def run_file(self) -> Path:
        """The run file."""
        return self.directory / "run.toml"

    @property
    def key(self) -> Path:
        """The founder's key."""
        return self.directory / "founder.key"

    @property
    def config(self) -> RunConfig:
        """What the run file says."""
        return read_run_file(self.run_file)


Found = Callable[..., Founded]


@pytest.fixture
def found(call: Call, tmp_path: Path) -> Found:
    """Return a function that founds a run at ``address`` in a directory of its own."""

    def found(*options: object, address: str = "127.0.0.1:9", name: str = "run") -> Founded:
        directory = tmp_path / name
        directory.mkdir()
        files = ("--out", directory / "run.toml", "--identity", directory / "founder.key")
        ended = call("new", *files, "--listen", address, *options)
        assert ended.code == 0, ended.err
        match = re.search(r"^btard1-\S+$", ended.out, flags=re.MULTILINE)
        assert match is not None
        return Founded(directory, match[0])

    return found


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address on this machine that nobody listens at, and nobody else can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def busy_address() -> Iterator[str]:
    """An address on this machine at which another program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def listen_in_thread(
    identity: Identity, terms: Terms, serve: Callable[[Hub, TcpTransport], None] = lambda hub, tcp: None
) -> Iterator[Address]:
    """Let a peer listen on this machine, in a thread of its own."""
    began: queue.Queue[tuple[Address, trio.lowlevel.TrioToken, trio.CancelScope]] = queue.Queue()

    async def listen() -> None:
        with trio.CancelScope() as scope:
            async with open_tcp(identity, terms, Address("127.0.0.1", 0)) as tcp:
                hub = Hub(tcp, identity.peer_id)
                serve(hub, tcp)
                began.put((tcp.address, trio.lowlevel.current_trio_token(), scope))
                await hub.run()

    thread = threading.Thread(target=trio.run, args=(listen,))
    thread.start()
    address, token, scope = began.get(timeout=60)
    yield address
    token.run_sync_soon(scope.cancel)
    thread.join(60)


@pytest.fixture
def foreign_address() -> Iterator[str]:
    """An address on this machine at which a peer of another run listens."""
    with listen_in_thread(Identity.generate(), Terms(b"foreign".ljust(32))) as address:
        yield str(address)
