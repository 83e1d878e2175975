"""
What words of ours bind us to of others' data: on disk with the word, and held again after a restart.

Nobody else may have it, or give it back to us. ``swarm/binding.py`` says which word binds us to what. What comes back
from the disk is believed like what comes from others: a slice for its proof, an aggregate for its root.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from btard.swarm.compute import Compute
from btard.swarm.frames import Kind, PartHead, SliceHead
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import SMALL_BLOB, UPDATES_DIRECTORY, BoundRow, keep_file
from btard.swarm.scatter import Piece
from btard.swarm.state import Gradient, as_bytes
from btard.wire import encode

PREFIX = "bound-"
"""With which names of files begin that hold such data."""
ALL_ATTEMPTS = (1 << 63) - 1
"""Stands for the attempt of what binds us in every one of its round and of the next."""


class Bound(NamedTuple):
    """One piece of data: its name, unlike that of any other, and the kind, head and payload with which it is sent."""

    name: str
    kind: Kind
    head: bytes
    payload: memoryview


def make_bound_slice(number: int, root: bytes, piece: Piece) -> Bound:
    """Return chunks of a committed gradient as what we are bound to."""
    first, stop = piece.chunks.start, piece.chunks.stop
    head = SliceHead(number, root, first, stop, piece.proof)
    return Bound(f"slice-{number}-{root.hex()}-{first}-{stop}", Kind.SLICE, encode(head), as_bytes(piece.values))


def make_bound_gradient(number: int, gradient: Gradient, chunks: int) -> Bound:
    """Return our own gradient, of so many chunks, as what we are bound to."""
    return make_bound_slice(number, gradient.tree.root, Piece(range(chunks), gradient.values, ()))


def make_bound_part(number: int, attempt: int, part: int, payload: memoryview) -> Bound:
    """Return the aggregate of a part as what we are bound to."""
    return Bound(f"part-{number}-{attempt}-{part}", Kind.PART, encode(PartHead(number, attempt, part)), payload)


class BoundData:
    """What words of the newest two attempts, of the newest two rounds, bind us to, in one data directory.

    A word binds us to no more than our gradient (COMMIT), one slice for each contributor (CONFIRM) or each way between
    a marked pair that we pass on for (AGGREGATE), and one aggregate for each part (REVEAL, ATTEST). An attempt before
    these two is settled,
    by whatever ended the one after it, and nobody asks for its data again; a round that is run again begins with new
    words. Small data is in the ledger, large data in files.
    """

    def __init__(self, data_dir: Path, ledger: Ledger, disk: Compute) -> None:
        self._directory, self._rows, self._disk = data_dir / UPDATES_DIRECTORY, ledger.bound, disk
        self._places = {row.name: (row.round, row.attempt) for row in self._rows.read()}
        for path in self._directory.glob(f"{PREFIX}*.bin"):
            if path.stem.removeprefix(PREFIX) not in self._places:  # its row fell in a crash
                path.unlink(missing_ok=True)

    def keep(
        self, number: int, attempt: int, items: Sequence[Bound], *, is_lasting: bool = False
    ) -> Callable[[], Coroutine[object, object, None]] | None:
        """Write what our next message binds us to, with it; of what is large return the rest of the work.

        The message is to wait for that. What ``is_lasting`` binds us in later attempts of the round as well.

        Raises:
            ConfigError: the disk is full.
        """
        if not items:
            return None
        self.forget(number, attempt)
        attempt = ALL_ATTEMPTS if is_lasting else attempt
        self._places.update({item.name: (number, attempt) for item in items})
        small = [item for item in items if item.payload.nbytes <= SMALL_BLOB]
        large = [item for item in items if item.payload.nbytes > SMALL_BLOB]
        rows = [BoundRow(item.name, number, attempt, item.kind, item.head, bytes(item.payload)) for item in small]
        self._rows.record(rows)
        return partial(self._keep_large, number, attempt, large) if large else None

    async def _keep_large(self, number: int, attempt: int, items: Sequence[Bound]) -> None:
        for item in items:
            await self._disk.run(partial(keep_file, self._directory, _file_name(item.name), item.payload))
        await trio.lowlevel.checkpoint_if_cancelled()  # a thread writes on when nobody waits for it any more
        self._rows.record([BoundRow(item.name, number, attempt, item.kind, item.head, None) for item in items])

    async def load(self) -> list[Bound]:
        """Return all that is here in full, each piece in memory of its own."""
        return await self._disk.run(lambda: list(self._read())) if self._places else []

    def _read(self) -> Iterator[Bound]:
        for row in self._rows.read():
            path = self._directory / _file_name(row.name)
            data = path.read_bytes() if row.payload is None and path.is_file() else row.payload
            if data and len(data) % 4 == 0:
                yield Bound(row.name, Kind(row.kind), row.head, memoryview(bytearray(data)))

    def forget(self, number: int, attempt: int) -> None:
        """Drop what is older than the round before ``number``, or than the attempt before ``attempt``."""
        old = [name for name, place in self._places.items() if place[0] < number - 1 or place[1] < attempt - 1]
        if old:
            self._rows.forget(old)
        for name in old:
            del self._places[name]
            (self._directory / _file_name(name)).unlink(missing_ok=True)


def _file_name(name: str) -> str:
    return f"{PREFIX}{name}.bin"
