"""
The ledger: what a peer must not forget, on disk before it takes effect (design section 5; attacks A7).

Rules of this file

1. A message of ours is stored before it is sent, and a slot is never signed twice.
2. What is written survives a power loss (WAL, synchronous=FULL) and is never changed; only a seal
   that nobody has signed yet may be replaced, because its round was opened again.
3. One process holds the directory; a ledger belongs to one run and one key.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from btard.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from btard.identity import Context, PeerId, digest, short
from btard.rules.config import RunConfig, format_run_file
from btard.rules.evidence import Departure
from btard.rules.messages import SignedMessage, Stage
from btard.rules.seal import Seal, SealSignature
from btard.wire import decode, decode_seal, encode, encode_seal

LEDGER_FILE = "ledger.sqlite3"
LOCK_FILE = "lock"
EVIDENCE_DIRECTORY = "evidence"
FORMAT = b"btard ledger 1"
SMALL_BLOB = 64 * 1024
"""Largest evidence, in bytes, that is kept inside the database; beyond it a file is faster."""
MAX_DEPARTURE = 256 * 1024 * 1024
"""Largest departure, in bytes: 256 members' VIEWs and BALLOTs, each as large as the wire carries it, fit."""
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
    "departures": (
        "CREATE TABLE departures (round INTEGER, peer BLOB, kind TEXT, departure BLOB NOT NULL,"
        " PRIMARY KEY (round, peer, kind)) STRICT"
    ),
    "blobs": "CREATE TABLE blobs (name BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT",
}
"""The whole schema, name to statement; docs/reference/ledger.md explains it."""
_FIND_MESSAGE = "SELECT envelope FROM messages WHERE round = ? AND attempt = ? AND phase = ? AND serial = ?"


def evidence_file_name(name: bytes) -> str:
    """Return the file name of a large piece of evidence."""
    return f"{name.hex()}.bin"


class Ledger:
    """One peer's record of one run, for one task at a time. A method that writes returns when all is on disk.

    Raises (every method that writes):
        ConfigError: the disk is full or the file is damaged; the message says what to do.
    """

    def __init__(self, directory: Path, lock: int, database: sqlite3.Connection) -> None:
        self._directory, self._lock, self._database = directory, lock, database

    @classmethod
    def create(cls, directory: Path, config: RunConfig, me: PeerId) -> "Ledger":
        """Open the ledger in ``directory``, made first if there is none, and lock the directory.

        Raises:
            ConfigError: another process holds the directory, it cannot be written, the file is not
                a ledger, or it is that of another run or key.
        """
        lock = _lock_directory(directory)
        try:
            database = _open_database(directory / LEDGER_FILE, config, me)
        except BaseException:
            os.close(lock)
            raise
        _remove_leftovers(directory / EVIDENCE_DIRECTORY)
        return cls(directory, lock, database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Fold the write-ahead log into the file and release the directory; harmless when repeated."""
        if self._lock >= 0:
            self._database.close()
            os.close(self._lock)
            self._lock = -1

    def record_message(self, message: SignedMessage) -> None:
        """Store a message of our own; to be called before it is sent. The same bytes again change nothing.

        Raises:
            LocalProtocolError: other bytes are stored for the slot; nothing was written.
        """
        stage = message.slot.stage
        with self._writing():
            stored = self.stored_message(stage)
            if stored is None:
                row = (*map(int, stage), message.envelope)
                self._database.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", row)
            elif stored != message.envelope:
                raise LocalProtocolError(f"{stage} is signed already, with other bytes")

    def stored_message(self, stage: Stage) -> bytes | None:
        """Return the envelope that we signed for a stage, or ``None``: then it may be signed."""
        row = self._database.execute(_FIND_MESSAGE, tuple(map(int, stage))).fetchone()
        return row and bytes(row[0])

    def record_seal(self, seal: Seal) -> None:
        """Store the tuple of a finished round: the next one, or the newest anew while nobody has signed it.

        A seal that is stored already changes nothing.

        Raises:
            LocalProtocolError: a signed seal would be replaced, or a round would be skipped.
        """
        with self._writing():
            newest = self.newest_seal()
            query = "SELECT seal FROM seals WHERE round = ?"
            if self._database.execute(query, (seal.round,)).fetchone() == (encode_seal(seal),):
                return
            following = newest.round + 1 if newest else 0
            if newest and seal.round == newest.round and not self._has_signatures(seal.round):
                self._database.execute("UPDATE seals SET seal = ? WHERE round = ?", (encode_seal(seal), seal.round))
            elif seal.round == following:
                self._database.execute("INSERT INTO seals VALUES (?, ?)", (seal.round, encode_seal(seal)))
            else:
                raise LocalProtocolError(f"seal {seal.round} is out of turn or signed already; {following} is next")

    def _has_signatures(self, round_number: int) -> bool:
        query = "SELECT 1 FROM signatures WHERE round = ? LIMIT 1"
        return self._database.execute(query, (round_number,)).fetchone() is not None

    def record_signatures(self, round_number: int, signatures: Sequence[SealSignature]) -> None:
        """Store members' signatures over a round's seal; those known already change nothing.

        Raises:
            LocalProtocolError: there is no seal of that round.
        """
        with self._writing():
            if self._database.execute("SELECT 1 FROM seals WHERE round = ?", (round_number,)).fetchone() is None:
                raise LocalProtocolError(f"signatures over seal {round_number}, which is not stored")
            rows = [(round_number, item.signer, item.signature) for item in signatures]
            self._database.executemany("INSERT OR IGNORE INTO signatures VALUES (?, ?, ?)", rows)

    def record_departure(self, departure: Departure, blobs: Mapping[bytes, bytes | memoryview] | None = None) -> None:
        """Store who leaves and why, before it takes effect; the first record of a departure stands.

        ``blobs`` are the raw float32 bytes that a proof names by digest.

        Raises:
            LocalProtocolError: a blob's name is not its digest, or the departure could not be read back.
        """
        record = _encode_departure(departure)
        contents = {name: bytes(data) for name, data in (blobs or {}).items()}
        for name, data in contents.items():
            if digest(Context.EVIDENCE, data) != name:
                raise LocalProtocolError(f"evidence {name.hex()} does not hash to its name")
        with self._writing():
            for name, data in contents.items():
                self._store_blob(name, data)
            row = (departure.round, departure.peer, departure.kind.value, record)
            self._database.execute("INSERT OR IGNORE INTO departures VALUES (?, ?, ?, ?)", row)

    def _store_blob(self, name: bytes, data: bytes) -> None:
        if len(data) > SMALL_BLOB:
            _write_file(self._directory / EVIDENCE_DIRECTORY, evidence_file_name(name), data)
        else:
            self._database.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (name, data))

    def seals(self) -> Iterator[Seal]:
        """All stored seals, from the genesis on."""
        for (data,) in self._database.execute("SELECT seal FROM seals ORDER BY round").fetchall():
            yield decode_seal(data)

    def newest_seal(self) -> Seal | None:
        """The seal of the last finished round, or ``None`` before the genesis."""
        row = self._database.execute("SELECT seal FROM seals ORDER BY round DESC LIMIT 1").fetchone()
        return row and decode_seal(row[0])

    def signatures(self, round_number: int) -> tuple[SealSignature, ...]:
        """The stored signatures over a round's seal, by signer."""
        query = "SELECT signer, signature FROM signatures WHERE round = ? ORDER BY signer"
        return tuple(SealSignature(*row) for row in self._database.execute(query, (round_number,)).fetchall())

    def departures(self) -> Iterator[Departure]:
        """Everyone who left, in the order of rounds."""
        query = "SELECT departure FROM departures ORDER BY round, rowid"
        for (data,) in self._database.execute(query).fetchall():
            yield decode_departure(data)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it is on disk at the end, or nothing was written."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            path = self._directory / LEDGER_FILE
            raise ConfigError(f"cannot write {path}: {error}; free space on its disk and start again") from None


def decode_departure(data: bytes) -> Departure:
    """Return a departure as it is stored.

    Raises:
        RemoteProtocolError: the bytes are none.
    """
    departure: Departure = decode(data, Departure, limit=MAX_DEPARTURE)
    return departure


def _encode_departure(departure: Departure) -> bytes:
    """The bytes to store; what could not be read back would be a loss of evidence that nobody notices."""
    data = encode(departure)
    try:
        is_same = decode_departure(data) == departure
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"the departure of {short(departure.peer)} cannot be stored: {error}") from None
    if not is_same:
        raise LocalProtocolError(f"the departure of {short(departure.peer)} would be read back as another one")
    return data


def _lock_directory(directory: Path) -> int:
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


def _open_database(path: Path, config: RunConfig, me: PeerId) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
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
    for setting in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF"):
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


def _write_file(directory: Path, name: str, data: bytes) -> None:
    """Write a file that is there in full after a power loss, or not at all."""
    if (directory / name).exists():
        return
    if not directory.exists():
        directory.mkdir(mode=0o700)
        _sync_directory(directory.parent)
    partial = directory / f"{name}.partial"
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / name)
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(directory: Path) -> None:
    """Remove what a crash left half written."""
    for partial in directory.glob("*.bin.partial"):
        partial.unlink(missing_ok=True)
