"""
The files of a ledger: the schema, the steps, the lock on the directory, and what is too large for the database.

Every file appears under its name only when it is whole and on the disk.
"""

import fcntl
import mmap
import os
import sqlite3
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from btard.durable import PARTIAL, replacing, sync, write_durably
from btard.errors import ConfigError
from btard.identity import PeerId, short
from btard.rules.config import RunConfig, format_run_file

SMALL_BLOB = 64 * 1024
"""Most bytes of evidence, or of an aggregate, that are kept inside the database; beyond it a file is faster."""
LEDGER_FILE = "ledger.sqlite3"
LOCK_FILE = "lock"
EVIDENCE_DIRECTORY = "evidence"
UPDATES_DIRECTORY = "updates"
CHECKPOINT_DIRECTORY = "checkpoints"
LEFTOVERS = (f"{EVIDENCE_DIRECTORY}/*.bin", f"{UPDATES_DIRECTORY}/*.bin", f"{CHECKPOINT_DIRECTORY}/round-*")
"""Files that may have been half written when a process died; nothing that somebody else may keep there."""
FORMAT = b"btard ledger 9"
TABLES = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
    "messages": (
        "CREATE TABLE messages (round INTEGER, attempt INTEGER, phase INTEGER, serial INTEGER,"
        " envelope BLOB NOT NULL, PRIMARY KEY (round, attempt, phase, serial)) STRICT"
    ),
    "seals": "CREATE TABLE seals (round INTEGER PRIMARY KEY, seal BLOB NOT NULL) STRICT",
    "signatures": (
        "CREATE TABLE signatures (round INTEGER, signer BLOB, signature BLOB NOT NULL,"
        " PRIMARY KEY (round, signer)) STRICT"
    ),
    "line": "CREATE TABLE line (round INTEGER PRIMARY KEY, seal BLOB NOT NULL, signatures BLOB NOT NULL) STRICT",
    "departures": (
        "CREATE TABLE departures (round INTEGER, peer BLOB, kind TEXT, departure BLOB NOT NULL,"
        " PRIMARY KEY (round, peer, kind)) STRICT"
    ),
    "blobs": "CREATE TABLE blobs (name BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT",
    "works": (
        "CREATE TABLE works (attempt INTEGER, round INTEGER, record BLOB NOT NULL, PRIMARY KEY (attempt, round)) STRICT"
    ),
    "settlements": "CREATE TABLE settlements (attempt INTEGER PRIMARY KEY, proof BLOB NOT NULL) STRICT",
    "heard": "CREATE TABLE heard (round INTEGER NOT NULL, envelopes BLOB NOT NULL) STRICT",
    "updates": ("CREATE TABLE updates (round INTEGER PRIMARY KEY, is_applied INTEGER NOT NULL, aggregate BLOB) STRICT"),
    "part": (
        "CREATE TABLE part (one INTEGER PRIMARY KEY CHECK (one = 0), round INTEGER NOT NULL, attempt INTEGER NOT NULL,"
        " aggregate BLOB) STRICT"
    ),
    "bound": (
        "CREATE TABLE bound (name TEXT PRIMARY KEY, round INTEGER NOT NULL, attempt INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, head BLOB NOT NULL, payload BLOB) STRICT"
    ),
    "endings": "CREATE TABLE endings (kind TEXT PRIMARY KEY, reason TEXT NOT NULL) STRICT",
}
"""The whole schema, name to statement; docs/reference/ledger.md explains it."""


def lock_directory(directory: Path) -> int:
    """Return the descriptor whose flock holds the directory until it is closed or the process dies."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot write in {directory}: {reason}; choose another --data-dir") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        advice = "stop it or choose another --data-dir"
        raise ConfigError(f"{directory} is in use by another btard process; {advice}") from None
    return lock


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to a database file, made first if there is none; transactions begin and end by name."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def open_database(path: Path, config: RunConfig, me: PeerId) -> sqlite3.Connection:
    """Return the database at ``path``, made first if there is none.

    Raises:
        ConfigError: it cannot be opened, is not a ledger, or that of another run or key.
    """
    try:
        database = connect(path)
    except sqlite3.Error as error:
        raise ConfigError(f"cannot open {path}: {error}; choose a writable --data-dir") from None
    try:
        _prepare(database, config, me)
        _check_owner(database, path, config, me)
    except sqlite3.Error as error:
        database.close()
        message = f"cannot use {path} as a ledger: {error}; choose another --data-dir and a new key"
        raise ConfigError(message) from None
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, config: RunConfig, me: PeerId) -> None:
    """Make an empty database a ledger of this run and key."""
    for setting in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF", "secure_delete = OFF"):
        database.execute(f"PRAGMA {setting}")
    if database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        return
    database.execute("BEGIN IMMEDIATE")
    for statement in TABLES.values():
        database.execute(statement)
    rows = [("format", FORMAT), ("config", format_run_file(config).encode()), ("owner", bytes(me))]
    database.executemany("INSERT INTO meta VALUES (?, ?)", rows)
    database.execute("COMMIT")


def _check_owner(database: sqlite3.Connection, path: Path, config: RunConfig, me: PeerId) -> None:
    meta = dict(database.execute("SELECT name, value FROM meta").fetchall())
    if meta.get("format") != FORMAT:
        raise ConfigError(f"{path} is not a ledger of this version of btard; choose another --data-dir")
    if meta.get("config") != format_run_file(config).encode():
        raise ConfigError(f"{path} belongs to another run; choose another --data-dir")
    if meta.get("owner") != me:
        owner = short(meta.get("owner", b""))
        raise ConfigError(f"{path} belongs to peer {owner}, not {short(me)}; use its identity or another --data-dir")


class Step:
    """One step, on disk at the end with all before it, unless it ``is_lazy``; may be entered again and again.

    A step looks before it writes; should a write fail, the peer ends, and what was not on disk is undone.

    Raises:
        ConfigError: the disk is full or the file is damaged; the message says what to do.
    """

    def __init__(self, database: sqlite3.Connection, directory: Path, *, is_lazy: bool = False) -> None:
        self.database, self._directory, self._is_lazy = database, directory, is_lazy

    def __enter__(self) -> None:
        if not self.database.in_transaction:
            self._execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise self._explain(error) from None
        if error is None and not self._is_lazy:
            self._execute("COMMIT")

    def _execute(self, statement: str) -> None:
        try:
            self.database.execute(statement)
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> ConfigError:
        path = self._directory / LEDGER_FILE
        return ConfigError(f"cannot write {path}: {error}; free space on its disk and start again")


class BoundRow(NamedTuple):
    """What a word of ours binds us to; ``payload`` is ``None`` where it lies in a file of its own."""

    name: str
    round: int
    attempt: int
    kind: int
    head: bytes
    payload: bytes | None


class BoundRows:
    """The rows of what our words bind us to, each written, or dropped, with our next message."""

    def __init__(self, lazily: Step) -> None:
        self._lazily, self._database = lazily, lazily.database

    def record(self, rows: Iterable[BoundRow]) -> None:
        """Store rows, each in place of one of its name."""
        with self._lazily:
            self._database.executemany("INSERT OR REPLACE INTO bound VALUES (?, ?, ?, ?, ?, ?)", rows)

    def read(self) -> list[BoundRow]:
        """All rows."""
        return [BoundRow(*row) for row in self._database.execute("SELECT * FROM bound ORDER BY name").fetchall()]

    def forget(self, names: Iterable[str]) -> None:
        """Drop rows."""
        with self._lazily:
            self._database.executemany("DELETE FROM bound WHERE name = ?", [(name,) for name in names])


def keep_file(directory: Path, name: str, data: memoryview, spare: Path | None = None) -> None:
    """Write a file that a peer cannot go on without, over a ``spare`` one of that directory if there is one.

    Raises:
        ConfigError: the disk is full.
    """
    try:
        write_file(directory, name, data, spare)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot write {directory}: {reason}; free space and start again") from None


def write_file(directory: Path, name: str, data: bytes | memoryview, spare: Path | None = None) -> None:
    """Write a file, or replace it, so that after a power loss it is there in full or as it was before."""
    if not directory.exists():
        directory.mkdir(mode=0o700)
        sync(directory.parent)
    write_durably(directory / name, data, spare)


def evidence_file_name(name: bytes) -> str:
    """Return the file name of a large piece of evidence."""
    return f"{name.hex()}.bin"


def store_evidence(database: sqlite3.Connection, data_dir: Path, name: bytes, data: bytes) -> None:
    """Store evidence under its digest, what is large in a file; what is there already stays."""
    if len(data) > SMALL_BLOB:
        directory, file = data_dir / EVIDENCE_DIRECTORY, evidence_file_name(name)
        if not (directory / file).exists():
            write_file(directory, file, data)
    else:
        database.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (name, data))


def map_file(path: Path) -> memoryview | None:
    """Return the bytes of a file that is never changed, read as they are used; ``None`` if it is not there."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # not there, or empty
        return None


def remove_leftovers(directory: Path) -> None:
    """Remove what a crash left half written in the directories of a ledger, and among the checkpoints."""
    for pattern in LEFTOVERS:
        for partial in directory.glob(pattern + PARTIAL):
            partial.unlink(missing_ok=True)


def was_put_aside(directory: Path) -> bool:
    """Return whether an older ledger of a peer that was removed or left lies in the directory."""
    return any(directory.glob("ledger-until-round-*.sqlite3"))


def copy_aside(database: sqlite3.Connection, directory: Path, newest: int) -> None:
    """Write all that is committed to a database into a file of its own, under a name that no earlier one has.

    SQLite copies it, log and all. The file itself cannot be moved: while anybody reads it the newest rows may be in the
    log alone, and whoever closes it last removes the log by its name, be it that of the next ledger.

    Raises:
        ConfigError: it cannot be written.
    """
    names = (f"ledger-until-round-{newest}{again}.sqlite3" for again in chain([""], (f"-{n}" for n in count(2))))
    path = next(path for path in map(directory.joinpath, names) if not path.exists())
    try:
        with replacing(path) as partial:
            database.execute("VACUUM INTO ?", (str(partial),))
    except (sqlite3.Error, OSError) as error:
        advice = "free space on its disk and start again"
        raise ConfigError(f"cannot put the old ledger in {directory} aside: {error}; {advice}") from None
