"""
The side channel of colluders: a board of notes on which each member writes its own.

Two implementations: a dictionary for attackers in one process, a directory for real processes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import trio

from btard.identity import PeerId

POLL_S = 0.05
"""How often a member looks for a note that it waits for."""

Note = tuple[float, ...]


class Coalition(Protocol):
    """Notes by topic and author; a topic is a short word of letters, digits and dashes."""

    def put(self, topic: str, author: PeerId, note: Sequence[float]) -> None:
        """Write a note; from now on every member reads it whole."""

    def get(self, topic: str) -> Mapping[PeerId, Note]:
        """Return all notes on a topic, by author."""


class SharedCoalition:
    """The board of attackers in one process."""

    def __init__(self) -> None:
        self._notes: dict[str, dict[PeerId, Note]] = {}

    def put(self, topic: str, author: PeerId, note: Sequence[float]) -> None:
        """See ``Coalition.put``."""
        self._notes.setdefault(topic, {})[author] = tuple(note)

    def get(self, topic: str) -> Mapping[PeerId, Note]:
        """See ``Coalition.get``."""
        return dict(self._notes.get(topic, {}))


class DirectoryCoalition:
    """The board of attackers in several processes of one machine: a file per note, in place all at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, topic: str, author: PeerId, note: Sequence[float]) -> None:
        """See ``Coalition.put``."""
        path = self._directory / f"{topic}.{author.hex()}"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(list(note)))
        draft.replace(path)

    def get(self, topic: str) -> Mapping[PeerId, Note]:
        """See ``Coalition.get``."""
        return {
            PeerId(bytes.fromhex(path.name.rpartition(".")[2])): tuple(json.loads(path.read_text()))
            for path in sorted(self._directory.glob(f"{topic}.*"))
        }


async def wait_for_note(coalition: Coalition, topic: str, author: PeerId, wait_s: float) -> Note | None:
    """Return an author's note, or None if it is not there within ``wait_s`` seconds."""
    with trio.move_on_after(wait_s):
        while author not in coalition.get(topic):  # noqa: ASYNC110 - other processes set no event of ours
            await trio.sleep(POLL_S)
    return coalition.get(topic).get(author)
