"""The sequence number of our contact record: higher every time, also across restarts."""

import logging
from collections.abc import Callable
from pathlib import Path

from btard.durable import write_durably
from btard.errors import ConfigError

MAX_SEQUENCE = 2**62
"""A stored number above this is damage: counting milliseconds from 1970 needs 146 million years to get there."""

log = logging.getLogger("btard.dht")


class SequenceFile:
    """Hands out sequence numbers, each written to ``path`` before it is used.

    They follow the wall clock, so a peer that lost the file is heard again; the file is what
    keeps them rising when the clock was set back. ``path`` ``None`` relies on the clock alone.
    """

    def __init__(self, path: Path | None, now_ms: Callable[[], int]) -> None:
        self._path, self._now_ms = path, now_ms
        self._last = 0 if path is None else _read(path)

    @property
    def is_on_disk(self) -> bool:
        """Whether taking a number waits for a disk."""
        return self._path is not None

    def take(self) -> int:
        """Return a number above every one handed out before, after it is safely on disk.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._last = max(self._last + 1, self._now_ms())
        if self._path is not None:
            _write(self._path, self._last)
        return self._last


def _read(path: Path) -> int:
    """Return the number in ``path``; 0 when there is no such file or it is damaged."""
    try:
        number = int(path.read_bytes()[:32])
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; make it readable or delete it") from None
    except ValueError:
        number = -1
    if 0 <= number <= MAX_SEQUENCE:
        return number
    log.warning("%s is damaged; the DHT sequence number starts from the clock", path)
    return 0


def _write(path: Path, number: int) -> None:
    """Replace ``path`` in one step, so that a crash leaves the old or the new number."""
    try:
        write_durably(path, b"%d\n" % number)
    except OSError as error:
        advice = "free space or choose a writable directory"
        raise ConfigError(f"cannot write {path}: {error.strerror}; {advice}") from None
