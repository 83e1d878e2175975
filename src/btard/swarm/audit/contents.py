"""
What is in a ledger file, read without trust and without writing to it.

Whatever the file holds, reading ends in values or in problems, one line each: the file may be
damaged, cut short, forged, or somebody else's database.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from btard.errors import ConfigError, RemoteProtocolError
from btard.identity import PEER_ID_SIZE, Context, PeerId, digest, short
from btard.rules.config import RunConfig, format_run_file, parse_run_file
from btard.rules.evidence import Departure
from btard.rules.messages import Phase, Stage
from btard.rules.seal import Seal, SealSignature
from btard.swarm.departures import decode_departure
from btard.swarm.ledger_files import (
    EVIDENCE_DIRECTORY,
    FORMAT,
    LEDGER_FILE,
    SMALL_BLOB,
    TABLES,
    evidence_file_name,
)
from btard.wire import decode_seal

COPY_ATTEMPTS = 5
AUDITED = ("meta", "messages", "seals", "signatures", "departures", "blobs")
"""The tables that say what happened; the others are only what a restart needs."""
_QUERIES = {table: f"SELECT * FROM {table} ORDER BY 1, 2" for table in AUDITED}  # noqa: S608 - fixed names
Rows = list[tuple[Any, ...]]
T = TypeVar("T")


class Unreadable(Exception):
    """The file is no ledger at all; the message says why."""


@dataclass(frozen=True)
class Evidence:
    """The blobs that proofs name by digest: small ones from the table, large ones from files, read when asked for."""

    table: Mapping[bytes, bytes]
    directory: Path
    largest: int

    def get(self, name: bytes) -> bytes | None:
        """Return the bytes whose digest is ``name``, or ``None`` where they are missing or altered."""
        data = self.table.get(name)
        return self._read(name) if data is None else data if _is_named(name, data) else None

    def _read(self, name: bytes) -> bytes | None:
        path = self.directory / evidence_file_name(name)
        try:
            data = path.read_bytes() if path.stat().st_size <= self.largest else b""
        except OSError:
            return None
        return data if _is_named(name, data) else None

    def find_problems(self) -> Iterator[str]:
        """Yield what is not what its name says; names nobody asks for included."""
        for name, data in self.table.items():
            if not _is_named(name, data) or len(data) > SMALL_BLOB:
                yield f"evidence {short(name)} in the table is not what its name says"
        for path in sorted(self.directory.glob("*.bin")):
            if not _is_digest(path.stem) or self._read(bytes.fromhex(path.stem)) is None:
                yield f"evidence file {path.name} is not what its name says"


def _is_named(name: bytes, data: bytes) -> bool:
    return digest(Context.EVIDENCE, data) == name


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


@dataclass(frozen=True)
class Contents:
    """A ledger as values, in the order of rounds; nothing in it is verified yet, but everything is well formed."""

    config: RunConfig
    owner: PeerId
    messages: tuple[tuple[Stage, bytes], ...]
    seals: tuple[Seal, ...]
    signatures: Mapping[int, tuple[SealSignature, ...]]
    departures: tuple[Departure, ...]
    evidence: Evidence
    problems: tuple[str, ...]


def read_contents(path: Path) -> Contents:
    """Return what the ledger at ``path`` (the file, or the directory around it) holds; the file is only read.

    Raises:
        Unreadable: missing, not SQLite, damaged, of another schema, or without a valid configuration.
    """
    file = path / LEDGER_FILE if path.is_dir() else path
    if not file.is_file():
        raise Unreadable(f"there is no ledger at {path}")
    try:
        rows = _read_tables(file)
        return _build_contents(rows, file.parent / EVIDENCE_DIRECTORY)
    except (sqlite3.Error, OSError) as error:
        raise Unreadable(f"{file} cannot be read as a ledger: {error}") from None


def _read_tables(file: Path) -> dict[str, Rows]:
    """All rows of all tables, read from a copy: SQLite writes beside whatever it opens."""
    with TemporaryDirectory(prefix="btard-audit-") as temporary:
        copy = Path(temporary) / LEDGER_FILE
        _copy_database(file, copy)
        database = sqlite3.connect(copy, isolation_level=None)
        try:
            database.text_factory = bytes
            database.execute("PRAGMA trusted_schema = OFF")
            _require_ledger(database, file)
            return {table: database.execute(query).fetchall() for table, query in _QUERIES.items()}
        finally:
            database.close()


def _copy_database(file: Path, copy: Path) -> None:
    """Copy the file and its write-ahead log; once more if a running peer changed them meanwhile."""
    log, log_copy = file.with_name(f"{file.name}-wal"), copy.with_name(f"{copy.name}-wal")
    for _ in range(COPY_ATTEMPTS):
        before = _stamp(file), _stamp(log)
        shutil.copyfile(file, copy)
        log_copy.unlink(missing_ok=True)
        if before[1]:
            shutil.copyfile(log, log_copy)
        if before == (_stamp(file), _stamp(log)):
            return
    raise Unreadable(f"{file} changes while it is read; audit it when its peer has stopped")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _require_ledger(database: sqlite3.Connection, file: Path) -> None:
    """Go on only with the very schema and sound pages; STRICT tables make types part of that check."""
    query = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    if dict(database.execute(query).fetchall()) != {name.encode(): sql.encode() for name, sql in TABLES.items()}:
        raise Unreadable(f"{file} does not have the tables of a ledger")
    found = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != (b"ok",):
        raise Unreadable(f"{file} is damaged: {found[0].decode(errors='replace').splitlines()[0]}")


def _build_contents(rows: Mapping[str, Rows], directory: Path) -> Contents:
    config, owner = _read_meta(dict(rows["meta"]))
    evidence = Evidence(dict(rows["blobs"]), directory, 4 * config.elements)
    problems: list[str] = list(evidence.find_problems())

    def read(table: str, build: Callable[..., T]) -> Iterator[T]:
        for row in rows[table]:
            try:
                yield build(*row)
            except (RemoteProtocolError, ValueError) as error:
                problems.append(f"{table}, round {row[0]}: {error}")

    messages = tuple(read("messages", _build_message))
    seals = tuple(read("seals", _build_seal))
    signatures: dict[int, tuple[SealSignature, ...]] = {}
    for number, signature in read("signatures", _build_signature):
        signatures[number] = (*signatures.get(number, ()), signature)
    departures = tuple(read("departures", _build_departure))
    return Contents(config, owner, messages, seals, signatures, departures, evidence, tuple(problems))


def _read_meta(meta: Mapping[bytes, bytes]) -> tuple[RunConfig, PeerId]:
    if set(meta) != {b"format", b"config", b"owner"} or meta[b"format"] != FORMAT:
        raise Unreadable("this is not a ledger of this version of btard")
    try:
        config = parse_run_file(meta[b"config"].decode())
    except (ConfigError, UnicodeDecodeError) as error:
        raise Unreadable(f"the ledger's run configuration is damaged: {error}") from None
    if format_run_file(config).encode() != meta[b"config"] or len(meta[b"owner"]) != PEER_ID_SIZE:
        raise Unreadable("the ledger's run configuration or owner was altered")
    return config, PeerId(meta[b"owner"])


def _build_message(number: int, attempt: int, phase: int, serial: int, envelope: bytes) -> tuple[Stage, bytes]:
    return Stage(number, attempt, Phase(phase), serial), envelope


def _build_seal(number: int, data: bytes) -> Seal:
    seal = decode_seal(data)
    if seal.round != number:
        raise ValueError(f"the seal stored here is that of round {seal.round}")
    return seal


def _build_signature(number: int, signer: bytes, signature: bytes) -> tuple[int, SealSignature]:
    return number, SealSignature(signer, signature)


def _build_departure(number: int, peer: bytes, kind: bytes, data: bytes) -> Departure:
    departure = decode_departure(data)
    if (departure.round, departure.peer, departure.kind.value.encode()) != (number, peer, kind):
        raise ValueError(f"peer {short(peer)}: the departure stored here is another one")
    return departure
