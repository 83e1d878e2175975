"""
How a running peer is told to leave: a named pipe in its data directory, which only its owner may write to.

A pipe without a reader cannot be written to, and what was written dies with its reader. So no request
outlives the peer that it was meant for: one that starts later finds nothing, and whoever asks where
nobody runs learns so at once. Nothing is polled, and no length of a path matters, as it would for a
Unix socket.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from btard.errors import ConfigError

PIPE = "leave"
REQUEST = b"leave\n"
MAX_READ = 4096

log = structlog.get_logger(__name__)


class LeavePipe:
    """The reading end, open from ``listen`` until ``close``: so long is the peer there."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / PIPE
        self._pipe: int | None = None

    async def listen(self, leave: Callable[[], None]) -> None:
        """Call ``leave`` whenever somebody asks for it, until cancelled; the directory must be ours."""
        try:
            self._pipe = _open_new(self._path)
        except OSError as error:
            log.warning("this peer cannot be told to leave", path=str(self._path), reason=error.strerror)
            return
        while True:
            await trio.lowlevel.wait_readable(self._pipe)
            with suppress(BlockingIOError):
                os.read(self._pipe, MAX_READ)
                leave()

    def close(self) -> None:
        """Be gone; whoever waits for us sees it."""
        if self._pipe is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._pipe), os.lstat(self._path)):  # not that of a peer that came after us
                self._path.unlink()
        os.close(self._pipe)
        self._pipe = None


def _open_new(path: Path) -> int:
    """Return a new pipe, opened for both directions: it never ends, whoever closes it at the other side."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def ask_to_leave(directory: Path) -> bool:
    """Ask the peer that runs in ``directory`` to leave; return False where none listens.

    Raises:
        ConfigError: it is not our peer.
    """
    return _knock(directory, REQUEST)


def is_listening(directory: Path) -> bool:
    """Return whether a peer in ``directory`` can be told to leave."""
    return _knock(directory, b"")


def _knock(directory: Path, request: bytes) -> bool:
    try:
        pipe = os.open(directory / PIPE, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise ConfigError(f"the peer in {directory} is another user's; only its owner can tell it to leave") from None
    except OSError:  # there is no pipe, or nobody at its other end
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
            return False
        with suppress(BlockingIOError):  # it is full of requests already
            os.write(pipe, request)
    except BrokenPipeError:
        return False
    finally:
        os.close(pipe)
    return True
