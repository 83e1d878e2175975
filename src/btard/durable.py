"""
Files that are whole or absent, after a crash at any instant, a power loss or a full disk.

Each is written beside its name, flushed to the disk, put under its name, and the name flushed too. A file that nobody
needs any more may be written over: its room is there already, which takes half the time that new room takes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

PARTIAL = ".partial"
"""How the names of files end that are being written; what a kill leaves of one is written over the next time."""


@contextmanager
def replacing(path: Path, spare: Path | None = None) -> Iterator[Path]:
    """Yield where to write what then takes the place of ``path``; an error leaves that as it was, and no remains.

    A ``spare`` file of the same directory is there to be written over: its old name is gone for good before.
    """
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        if spare is not None:
            with suppress(FileNotFoundError):  # somebody may have tidied up
                spare.replace(partial)
            sync(path.parent)
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_durably(path: Path, data: bytes | memoryview, spare: Path | None = None) -> None:
    """Write a file, or replace it, over a ``spare`` one of its directory if there is one.

    Raises:
        OSError: it cannot be written; it is as it was before.
    """
    with replacing(path, spare) as partial, os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.write(data)
        file.truncate()


def create_secret(path: Path, data: bytes) -> None:
    """Write a new file for its owner only; a kill may leave a copy beside it, under a name of its own.

    Raises:
        FileExistsError: it is there already.
        OSError: it cannot be written, and is not there.
    """
    handle, name = mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=PARTIAL)  # mode 0600 from the start
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        sync(partial)
        path.hardlink_to(partial)  # a rename would replace another's file
    finally:
        partial.unlink()
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk before returning."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
