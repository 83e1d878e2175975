"""
The ledger: what a peer must not forget, on disk before it takes effect (design section 5; attacks A7).

Rules of this file

1. A message of ours is stored before it is sent, and a slot is never signed twice.
2. What is written survives a power loss (WAL, synchronous=FULL) and is never changed; only a seal
   that nobody has signed yet may be replaced, because its round was opened again.
3. One process holds the directory; a ledger belongs to one run and one key.
4. What can be worked out again waits for the next message of ours and is written with it: whatever a
   message stands on is on disk when it leaves, and costs no wait of its own.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from btard.errors import LocalProtocolError
from btard.identity import Context, PeerId, digest
from btard.rules.config import RunConfig
from btard.rules.evidence import Departure
from btard.rules.messages import SignedMessage, Stage
from btard.rules.seal import Seal, SealSignature
from btard.swarm.departures import decode_departure, encode_departure
from btard.swarm.frames import SignedTuple
from btard.swarm.ledger_files import (
    LEDGER_FILE,
    TABLES,
    BoundRows,
    Step,
    copy_aside,
    lock_directory,
    open_database,
    remove_leftovers,
    store_evidence,
)
from btard.wire import decode, decode_seal, encode, encode_seal

MAX_HEARD = 512 * 1024 * 1024
"""Largest row of what was heard, in bytes: 256 members' messages of two stages, each as large as there is."""
SETTLEMENTS = 64
"""Attempts whose settlements are kept. Nobody is removed for being away where others are banned: a member may be as
many attempts behind as there are cheats, of 64 less than half. Whoever is further behind is out, as a seal says."""
_FIND_MESSAGE = "SELECT envelope FROM messages WHERE round = ? AND attempt = ? AND phase = ? AND serial = ?"


class Ledger:
    """One peer's record of one run, for one task at a time.

    A method that writes returns when all is on disk; those that say "with the next message" write lazily, and
    then a crash takes back everything since the last message: the next start works it out again.

    Raises (every method that writes):
        ConfigError: the disk is full or the file is damaged; the message says what to do.
    """

    def __init__(self, directory: Path, lock: int, database: sqlite3.Connection) -> None:
        self._directory, self._lock, self._database = directory, lock, database
        self._now, self._lazily = Step(database, directory), Step(database, directory, is_lazy=True)
        self.bound = BoundRows(self._lazily)
        self.signings = 0
        """How often signatures over seals were stored since the ledger was opened; an index reads no oftener."""
        self.rewritings = Counter[int]()
        """How often a round's aggregate was stored anew since then: each time the round had been run again."""
        self._heard: dict[int, set[bytes]] = {}  # by round
        self._known = set[bytes]()  # all of these
        # The database is asked about rounds up to this; what we have signed in later ones is remembered.
        self._asked_up_to: int = database.execute("SELECT coalesce(max(round), 0) FROM messages").fetchone()[0]
        self._mine: dict[Stage, bytes] = {}
        self._departed = {peer for (peer,) in database.execute("SELECT peer FROM departures")}

    @classmethod
    def create(cls, directory: Path, config: RunConfig, me: PeerId) -> "Ledger":
        """Open the ledger in ``directory``, made first if there is none, and lock the directory.

        Raises:
            ConfigError: another process holds the directory, it cannot be written, the file is not
                a ledger, or it is that of another run or key.
        """
        lock = lock_directory(directory)
        try:
            database = open_database(directory / LEDGER_FILE, config, me)
        except BaseException:
            os.close(lock)
            raise
        remove_leftovers(directory)
        return cls(directory, lock, database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._lock >= 0 and self._database.in_transaction:
            self._database.execute("ROLLBACK")  # as if the process had died: that path is the one to trust
        self.close()

    def sync(self) -> None:
        """Return when all that was written lazily is on disk."""
        with self._now:
            pass

    def close(self) -> None:
        """Fold the write-ahead log into the file and release the directory; harmless when repeated."""
        if self._lock >= 0:
            if self._database.in_transaction:
                self.sync()
            self._database.close()
            os.close(self._lock)
            self._lock = -1

    def put_aside(self) -> None:
        """Move all rows to a file beside and close: whoever opens the ledger next begins a new one.

        None is dropped before the copy is whole and on disk. Evidence and updates in files of their own stay there.
        """
        newest = self.newest_seal()
        self.sync()
        copy_aside(self._database, self._directory, newest.round if newest else 0)
        with self._now:
            for table in TABLES:
                if table != "meta":
                    self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names
        self.close()

    def record_message(self, message: SignedMessage, heard: Iterable[SignedMessage] = ()) -> None:
        """Store a message of our own; to be called before it is sent. The same bytes again change nothing.

        ``heard`` are the others' messages that it follows from: members that left cannot be asked again.

        Raises:
            LocalProtocolError: other bytes are stored for the slot; nothing was written.
        """
        row = (*map(int, message.slot.stage), message.envelope)
        with self._now:
            done = self._database.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?)", row)
            if not done.rowcount and self.stored_message(message.slot.stage) != message.envelope:
                raise LocalProtocolError(f"{message.slot.stage} is signed already, with other bytes")
            self._mine[message.slot.stage] = message.envelope
            news = {item.digest: item for item in heard if item.digest not in self._known}
            if news:
                newest = max([item.slot.stage.round for item in news.values()])
                self._heard.setdefault(newest, set()).update(news)
                self._known.update(news)
                envelopes = encode([item.envelope for item in news.values()])
                self._database.execute("INSERT INTO heard VALUES (?, ?)", (newest, envelopes))

    def stored_message(self, stage: Stage) -> bytes | None:
        """Return the envelope that we signed for a stage, or ``None``: then it may be signed."""
        if stage.round > self._asked_up_to:
            return self._mine.get(stage)
        row = self._database.execute(_FIND_MESSAGE, tuple(map(int, stage))).fetchone()
        return row and bytes(row[0])

    def record_seal(self, seal: Seal, departures: Sequence[Departure] = ()) -> None:
        """Store the tuple of a finished round: the next one, or the newest anew while nobody has signed it.

        ``departures`` by a charge or a goodbye stand and fall with it: no attempt begins by them.

        The first one is that of the genesis; after a line, that with which we became a member.
        On disk with the next message.

        A seal that is stored already changes nothing.

        Raises:
            LocalProtocolError: a signed seal would be replaced, or a round would be skipped.
        """
        row = (seal.round, encode_seal(seal))
        with self._lazily:
            following = self._find_following(seal)
            if seal.round == following:
                self._database.execute("INSERT INTO seals VALUES (?, ?)", row)
            elif row not in self._database.execute("SELECT * FROM seals WHERE round = ?", row[:1]).fetchall():
                if seal.round + 1 != following or self.signatures(seal.round):
                    message = f"seal {seal.round} is out of turn or signed already; {following} is next"
                    raise LocalProtocolError(message)
                self._forget_sealed_departures(seal.round)
                self._database.execute("REPLACE INTO seals VALUES (?, ?)", row)
            for departure in departures:
                self._insert_departure(departure, encode_departure(departure))

    def _forget_sealed_departures(self, round_number: int) -> None:
        """Take back those that came with the seal of a round that was run again; all others began an attempt."""
        (old,) = self.seals_from(round_number, 1)
        found = self._database.execute("SELECT departure FROM departures WHERE round = ?", (round_number,)).fetchall()
        for item in (decode_departure(data) for (data,) in found):
            if item.comes_with(old.attempt):
                row = (item.round, item.peer, item.kind.value)
                self._database.execute("DELETE FROM departures WHERE round = ? AND peer = ? AND kind = ?", row)

    def _find_following(self, seal: Seal) -> int:
        """The round of the next seal, which may be any where we know a line and no seal yet."""
        query = "SELECT (SELECT max(round) + 1 FROM seals), EXISTS (SELECT 1 FROM line)"
        following, is_midway = self._database.execute(query).fetchone()
        return (seal.round if is_midway else 0) if following is None else int(following)

    def record_signatures(self, round_number: int, signatures: Sequence[SealSignature]) -> None:
        """Store members' signatures over a round's seal; those known already change nothing.

        On disk with the next message.

        Raises:
            LocalProtocolError: there is no seal of that round.
        """
        with self._lazily:
            if self._database.execute("SELECT 1 FROM seals WHERE round = ?", (round_number,)).fetchone() is None:
                raise LocalProtocolError(f"signatures over seal {round_number}, which is not stored")
            self.signings += 1
            rows = [(round_number, item.signer, item.signature) for item in signatures]
            self._database.executemany("INSERT OR IGNORE INTO signatures VALUES (?, ?, ?)", rows)

    def record_departure(self, departure: Departure, blobs: Mapping[bytes, bytes | memoryview] | None = None) -> None:
        """Store who leaves and why, before it takes effect; the first record of a departure stands.

        ``blobs`` are the raw float32 bytes that a proof names by digest.

        Raises:
            LocalProtocolError: a blob's name is not its digest, or the departure could not be read back.
        """
        record = encode_departure(departure)
        contents = {name: bytes(data) for name, data in (blobs or {}).items()}
        for name, data in contents.items():
            if digest(Context.EVIDENCE, data) != name:
                raise LocalProtocolError(f"evidence {name.hex()} does not hash to its name")
        with self._now:
            for name, data in contents.items():
                store_evidence(self._database, self._directory, name, data)
            self._insert_departure(departure, record)

    def _insert_departure(self, departure: Departure, record: bytes) -> None:
        row = (departure.round, departure.peer, departure.kind.value, record)
        self._database.execute("INSERT OR IGNORE INTO departures VALUES (?, ?, ?, ?)", row)
        self._departed.add(departure.peer)

    def seals(self) -> Iterator[Seal]:
        """All stored seals, from the genesis on."""
        for (data,) in self._database.execute("SELECT seal FROM seals ORDER BY round").fetchall():
            yield decode_seal(data)

    def seals_from(self, first: int, count: int) -> Iterator[Seal]:
        """At most ``count`` stored seals, from round ``first`` on."""
        for _, data in self.encoded_seals_from(first, count):
            yield decode_seal(data)

    def encoded_seals_from(self, first: int, count: int) -> list[tuple[int, bytes]]:
        """The same seals as they are stored, each with its round."""
        query = "SELECT round, seal FROM seals WHERE round >= ? ORDER BY round LIMIT ?"
        return self._database.execute(query, (first, count)).fetchall()

    def signed_seals_from(self, first: int, count: int) -> Iterator[Seal]:
        """At most ``count`` stored seals over which there are signatures, from round ``first`` on."""
        query = (
            "SELECT round, seal FROM seals WHERE round >= ?1 AND EXISTS "
            "(SELECT 1 FROM signatures WHERE signatures.round = seals.round) UNION ALL "
            "SELECT round, seal FROM line WHERE round >= ?1 AND round < (SELECT min(round) FROM seals) "
            "ORDER BY round LIMIT ?2"
        )
        for _, data in self._database.execute(query, (first, count)).fetchall():
            yield decode_seal(data)

    def newest_seal(self) -> Seal | None:
        """The seal of the last finished round, or ``None`` before the genesis."""
        row = self._database.execute("SELECT seal FROM seals ORDER BY round DESC LIMIT 1").fetchone()
        return row and decode_seal(row[0])

    def find_first_attempt(self) -> int:
        """Return the attempt of the seal that this ledger begins with, 0 if there is none: we sign in none before."""
        first = next(self.seals_from(0, 1), None)
        return first.attempt if first else 0

    def signatures(self, round_number: int) -> tuple[SealSignature, ...]:
        """The stored signatures over a round's seal, by signer."""
        query = "SELECT signer, signature FROM signatures WHERE round = ? ORDER BY signer"
        rows = self._database.execute(query, (round_number,)).fetchall()
        told = self._database.execute("SELECT signatures FROM line WHERE round = ?", (round_number,)).fetchone()
        if told and not rows:
            signatures: tuple[SealSignature, ...] = decode(told[0], tuple[SealSignature, ...])
            return signatures
        return tuple(SealSignature(*row) for row in rows)

    def record_line(self, line: Iterable[SignedTuple]) -> None:
        """Store the seals by which a newcomer came to know the run, from the genesis on, for those after us."""
        with self._now:
            self.signings += 1
            rows = [(decode_seal(item.seal).round, item.seal, encode(item.signatures)) for item in line]
            self._database.executemany("INSERT OR REPLACE INTO line VALUES (?, ?, ?)", rows)

    def departures(self) -> Iterator[Departure]:
        """Everyone who left, in the order of rounds."""
        query = "SELECT departure FROM departures ORDER BY round, rowid"
        for (data,) in self._database.execute(query).fetchall():
            yield decode_departure(data)

    def has_departed(self, peer: PeerId) -> bool:
        """Whether somebody has ever left, as far as this ledger goes back."""
        return peer in self._departed

    # --- what a restart needs ---

    def record_work(self, round_number: int, attempt: int, record: bytes) -> None:
        """Store where an attempt at a round begins, with the next message; what is two rounds older is dropped."""
        with self._lazily:
            self._database.execute("INSERT OR REPLACE INTO works VALUES (?, ?, ?)", (attempt, round_number, record))
            for table in ("works", "heard"):
                query = f"DELETE FROM {table} WHERE round > 0 AND round < ?"  # noqa: S608 - fixed names
                self._database.execute(query, (round_number - 1,))
            for old in [item for item in self._heard if item < round_number - 1]:
                self._known -= self._heard.pop(old)
            self._asked_up_to = max(self._asked_up_to, round_number - 2)
            self._mine = {stage: item for stage, item in self._mine.items() if stage.round > self._asked_up_to}

    def newest_work(self) -> bytes | None:
        """The record of the attempt that began last, or ``None`` before the genesis."""
        row = self._database.execute("SELECT record FROM works ORDER BY attempt DESC, round DESC LIMIT 1").fetchone()
        return row and bytes(row[0])

    def find_work(self, round_number: int, attempt: int) -> bytes | None:
        """The record of one attempt, if it is kept."""
        query = "SELECT record FROM works WHERE round = ? AND attempt = ?"
        row = self._database.execute(query, (round_number, attempt)).fetchone()
        return row and bytes(row[0])

    def heard(self) -> Iterator[bytes]:
        """The others' messages that our own of the last two rounds follow from."""
        for (envelopes,) in self._database.execute("SELECT envelopes FROM heard").fetchall():
            yield from decode(envelopes, tuple[bytes, ...], limit=MAX_HEARD)

    def own_messages(self, first_round: int, attempt: int) -> Iterator[bytes]:
        """Our messages from a round on, and those of recoveries of one attempt."""
        query = "SELECT envelope FROM messages WHERE round >= ? OR (round = 0 AND attempt = ?)"
        for (envelope,) in self._database.execute(query, (first_round, attempt)).fetchall():
            yield bytes(envelope)

    def record_settlement(self, attempt: int, proof: bytes) -> None:
        """Store what settled an attempt, with the next message: no later than the first of the attempt after it."""
        with self._lazily:
            self._database.execute("INSERT OR REPLACE INTO settlements VALUES (?, ?)", (attempt, proof))
            self._database.execute("DELETE FROM settlements WHERE attempt <= ?", (attempt - SETTLEMENTS,))

    def find_settlement(self, attempt: int) -> bytes:
        """What settled an attempt last, or nothing."""
        row = self._database.execute("SELECT proof FROM settlements WHERE attempt = ?", (attempt,)).fetchone()
        return bytes(row[0]) if row else b""

    def record_update(self, round_number: int, aggregate: bytes | None, *, is_applied: bool) -> None:
        """Store a round's aggregate with the next message; ``None`` where it lies in a file of its own."""
        with self._lazily:
            self.rewritings.update([round_number] if self.find_update(round_number) else [])
            row = (round_number, is_applied, aggregate)
            self._database.execute("INSERT OR REPLACE INTO updates VALUES (?, ?, ?)", row)

    def find_update(self, round_number: int) -> tuple[bool, bytes | None] | None:
        """Whether a round's aggregate was applied, and its bytes unless they lie in a file; ``None`` if unknown."""
        query = "SELECT is_applied, aggregate FROM updates WHERE round = ?"
        row = self._database.execute(query, (round_number,)).fetchone()
        return row and (bool(row[0]), None if row[1] is None else bytes(row[1]))

    def update_rounds(self) -> list[int]:
        """The rounds whose aggregates are kept, in order."""
        return [row[0] for row in self._database.execute("SELECT round FROM updates ORDER BY round").fetchall()]

    def forget_updates(self, last_round: int) -> None:
        """Drop aggregates up to a round, with the next message."""
        with self._lazily:
            self._database.execute("DELETE FROM updates WHERE round <= ?", (last_round,))

    def record_part(self, round_number: int, attempt: int, aggregate: bytes | None) -> None:
        """Store the aggregate of our part with the AGGREGATE that commits to it, in place of the one before.

        ``None`` where it lies in a file of its own.
        """
        with self._lazily:
            query = "INSERT OR REPLACE INTO part VALUES (0, ?, ?, ?)"
            self._database.execute(query, (round_number, attempt, aggregate))

    def find_part(self, round_number: int, attempt: int) -> tuple[bytes | None] | None:
        """The aggregate of our part, or ``(None,)`` where it lies in a file; ``None`` if we reduced none then."""
        query = "SELECT aggregate FROM part WHERE round = ? AND attempt = ?"
        found: tuple[bytes | None] | None = self._database.execute(query, (round_number, attempt)).fetchone()
        return found

    def record_ending(self, kind: str, reason: str) -> None:
        """Store that our part in this run is over, and how; the first record stands."""
        with self._now:
            if self.ending() is None:
                self._database.execute("INSERT INTO endings VALUES (?, ?)", (kind, reason))

    def ending(self) -> tuple[str, str] | None:
        """How our part in this run ended, as (kind, reason), or ``None`` while it goes on."""
        row = self._database.execute("SELECT kind, reason FROM endings LIMIT 1").fetchone()
        return row and (str(row[0]), str(row[1]))
