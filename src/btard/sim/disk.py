"""
The disk of a simulated machine: a ledger is in memory while its peer runs, and in its file while it does not.

The tables, the SQL, the transactions and the settings are the peer's own. Not simulated is what SQLite does
with files: the write-ahead log, waiting for the disk, recovery after a kill. That is SQLite's business and
tested with files, in swarms and in processes that are killed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from btard.swarm import ledger_files


class _Loaded(sqlite3.Connection):
    """A database in memory, put into its file by whoever closes it, without what was not committed."""

    path: Path

    def close(self) -> None:
        self.rollback()
        self.path.write_bytes(self.serialize())
        super().close()


def load(path: Path) -> sqlite3.Connection:
    """Return a database in memory with the content of a file, if there is one; ``close`` writes it there."""
    database = sqlite3.connect(":memory:", isolation_level=None, factory=_Loaded)
    database.path = path
    if path.exists():
        with closing(sqlite3.connect(path)) as stored:
            stored.backup(database)
    return database


@contextmanager
def ledgers_in_memory() -> Iterator[None]:
    """Let every ledger that this process opens until the end of the context be in memory while it is open."""
    original = ledger_files.connect
    ledger_files.connect = load
    try:
        yield
    finally:
        ledger_files.connect = original
