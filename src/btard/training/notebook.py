"""
What a peer has worked out: its identity work, and as a newcomer where its search for a ticket stands, and the ticket.

One small file in the data directory, replaced in one step. It is worth seconds or minutes of work, not an error: what
cannot be read or written, or belongs to another key, is done again.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta, Struct

from btard.identity import JoinTicket, PeerId, Puzzle
from btard.identity.work import MAX_NONCE

log = structlog.get_logger(__name__)

NOTEBOOK_FILE = "work.json"
MAX_FILE = 4096
"""Largest file, in bytes, that is read."""

_Number = Annotated[int, Meta(ge=0, lt=MAX_NONCE)]
_Digest = Annotated[bytes, Meta(max_length=32)]


class _Search(Struct, frozen=True, forbid_unknown_fields=True):
    """On one puzzle, every nonce below ``first`` was tried; ``evaluations`` in the whole run; what came of it."""

    run_id: _Digest
    identity_nonce: _Number
    round: _Number
    q: _Digest
    first: _Number
    evaluations: _Number
    ticket: JoinTicket | None = None


class _Page(Struct, frozen=True, forbid_unknown_fields=True):
    peer: _Digest
    identity_nonce: _Number | None = None
    search: _Search | None = None


class Notebook:
    """Kept in ``path``; without one, in memory only."""

    def __init__(self, path: Path | None, peer: PeerId, run_id: bytes) -> None:
        self._path = path
        page = _read(path) if path else None
        self._page = page if page and page.peer == peer else _Page(peer)
        if self._page.search and self._page.search.run_id != run_id:
            self._page = msgspec.structs.replace(self._page, search=None)

    @property
    def identity_nonce(self) -> int | None:
        """Our identity work, if it was done: good for every run."""
        return self._page.identity_nonce

    @property
    def has_search(self) -> bool:
        """Whether a search for a ticket of this run has begun."""
        return self._page.search is not None

    @property
    def ticket(self) -> JoinTicket | None:
        """What the last search in this run found; it may be too old by now."""
        return self._page.search.ticket if self._page.search else None

    @property
    def evaluations(self) -> int:
        """All evaluations done in this run."""
        return self._page.search.evaluations if self._page.search else 0

    def find_start(self, puzzle: Puzzle) -> int:
        """Return the lowest nonce that was not tried on ``puzzle``."""
        search = self._page.search
        return search.first if search and _names(search) == _names(puzzle) else 0

    def note_identity(self, nonce: int) -> None:
        """Keep our identity work."""
        self._replace(identity_nonce=nonce)

    def note_search(self, puzzle: Puzzle, first: int, evaluations: int, ticket: JoinTicket | None) -> None:
        """Keep how far the search has come, and what it found."""
        self._replace(search=_Search(*_names(puzzle), first, evaluations, ticket))

    def spend_ticket(self) -> None:
        """Forget what the last search found; how far it came stays."""
        if self._page.search and self._page.search.ticket:
            self._replace(search=msgspec.structs.replace(self._page.search, ticket=None))

    def _replace(self, **changes: object) -> None:
        self._page = msgspec.structs.replace(self._page, **changes)
        if self._path is None:
            return
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(msgspec.json.encode(self._page))
            partial.replace(self._path)
        except OSError as error:
            log.warning("work done so far is not kept", reason=str(error))


def _names(work: Puzzle | _Search) -> tuple[bytes, int, int, bytes]:
    """Return what tells the puzzles of one key apart."""
    return work.run_id, work.identity_nonce, work.round, work.q


def _read(path: Path) -> _Page | None:
    """Return what the file holds; None where it is missing or damaged."""
    try:
        if path.stat().st_size > MAX_FILE:
            return None
        return msgspec.json.decode(path.read_bytes(), type=_Page)
    except (OSError, ValueError, RecursionError):
        return None
