"""
Aggregates, on disk before anybody relies on them: what a restart replays, and what it sends again.

x_t is the newest snapshot and every ĝ after it. A ĝ is written beside the reports on it, and awaited before the CHECK
that holds them: who has said that it has all parts has them after a restart. The aggregate of our own part is on disk
with the AGGREGATE that commits to it: after a restart nobody has to be asked for the slices that it was made of.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from torch import Tensor

from btard.durable import PARTIAL
from btard.swarm.compute import Compute
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import SMALL_BLOB, UPDATES_DIRECTORY, keep_file, map_file
from btard.swarm.state import as_bytes, read_values

Writing = Callable[[], Coroutine[object, object, None]]
"""The rest of a write, for a task of its own."""


@dataclass(frozen=True)
class Update:
    """The aggregate ĝ of a round, float32 of shape (D,), and whether x moved by it."""

    aggregate: Tensor
    is_applied: bool


class Updates:
    """The aggregates in one data directory: small ones in the ledger, large ones in files."""

    def __init__(self, data_dir: Path, ledger: Ledger, disk: Compute) -> None:
        self._directory, self._ledger, self._disk = data_dir / UPDATES_DIRECTORY, ledger, disk
        self._written: dict[int, trio.Event] = {}
        self._mapped, self._spares = set[int](), list[Path]()

    def keep(self, number: int, aggregate: Tensor, *, is_applied: bool) -> Writing | None:
        """Write the ĝ of a round, and whether x moved by it; of a large one, return the rest of the work.

        Until that is done ``written`` waits.

        Raises:
            ConfigError: the disk is full.
        """
        data = as_bytes(aggregate)
        if data.nbytes <= SMALL_BLOB:
            self._ledger.record_update(number, bytes(data), is_applied=is_applied)
            return None
        is_written = self._written[number] = trio.Event()
        return partial(self._keep_large, number, data, is_written, is_applied=is_applied)

    async def _keep_large(self, number: int, data: memoryview, is_written: trio.Event, *, is_applied: bool) -> None:
        spare = self._spares.pop() if self._spares else None
        await self._disk.run(lambda: keep_file(self._directory, _file_name(number), data, spare))
        self._ledger.record_update(number, None, is_applied=is_applied)
        is_written.set()

    def keep_part(self, number: int, attempt: int, aggregate: Tensor) -> Writing | None:
        """Write the aggregate of our part, in place of the one before; of a large one, return the rest of the work.

        It is on disk with our next message, which is to wait for that work.

        Raises:
            ConfigError: the disk is full.
        """
        data = as_bytes(aggregate)
        if data.nbytes <= SMALL_BLOB:
            self._ledger.record_part(number, attempt, bytes(data))
            return None
        return partial(self._keep_large_part, number, attempt, data)

    async def _keep_large_part(self, number: int, attempt: int, data: memoryview) -> None:
        await self._disk.run(lambda: keep_file(self._directory, _part_name(attempt), data))
        await trio.lowlevel.checkpoint_if_cancelled()  # a thread writes on when nobody waits for it any more
        self._ledger.record_part(number, attempt, None)

    def load_part(self, number: int, attempt: int, elements: int) -> Tensor | None:
        """The aggregate of our part, float32 of shape (elements,); ``None`` if it is not here in full.

        It is to be compared with its root: of a part that was written no message need have been signed.
        """
        found = self._ledger.find_part(number, attempt)
        data = found and self._read(_part_name(attempt), found[0])
        return read_values(memoryview(bytearray(data))) if data and len(data) == 4 * elements else None

    def _read(self, name: str, data: bytes | None) -> bytes | None:
        """What lies in the ledger, or else in a file."""
        path = self._directory / name
        return path.read_bytes() if data is None and path.is_file() else data

    async def written(self, number: int) -> None:
        """Return once the ĝ of a round is on disk, or will be there with our next message.

        It is the newest one: an attempt that is over may have left us another, whose write is still under way.
        """
        is_written = self._written.get(number)
        if is_written is not None:
            await is_written.wait()
            if self._written.get(number) is is_written:
                del self._written[number]

    def is_under_way(self, number: int) -> bool:
        """Return whether the ĝ of a round is still being written."""
        is_written = self._written.get(number)
        return is_written is not None and not is_written.is_set()

    def load(self, number: int, elements: int) -> Update | None:
        """The ĝ of a round, shape (elements,); ``None`` if it is not here in full."""
        found = self._ledger.find_update(number)
        if found is None:
            return None
        is_applied, data = found[0], self._read(_file_name(number), found[1])
        if data is None or len(data) != 4 * elements:
            return None
        return Update(read_values(memoryview(bytearray(data))), is_applied)

    def map(self, number: int) -> memoryview | None:
        """The raw bytes of the ĝ of a round, read as they are used; ``None`` if it is not here."""
        found = self._ledger.find_update(number)
        if found is None:
            return None
        if found[1] is not None:
            return memoryview(found[1])
        self._mapped.add(number)
        return map_file(self._directory / _file_name(number))

    def is_applied(self, number: int) -> bool | None:
        """Whether x moved by the ĝ of a round; ``None`` if it is not here."""
        found = self._ledger.find_update(number)
        return found and found[0]

    def forget(self, last_round: int) -> None:
        """Drop every ĝ up to a round; later ones are written over their files, but for those that somebody may read."""
        self._ledger.forget_updates(last_round)
        read = {_file_name(number) for number in self._mapped}
        self._mapped = {number for number in self._mapped if number > last_round}
        self.give_room_back()
        for path in self._directory.glob("round-*.bin"):
            if path.name <= _file_name(last_round) and path.name in read:
                path.unlink(missing_ok=True)
            elif path.name <= _file_name(last_round):
                self._spares.append(path.replace(path.with_name(path.name + PARTIAL)))

    def give_room_back(self) -> None:
        """Remove the files that would be written over."""
        for spare in self._spares:
            spare.unlink(missing_ok=True)
        self._spares.clear()


def _file_name(number: int) -> str:
    return f"round-{number:018d}.bin"


def _part_name(attempt: int) -> str:
    """Two in turn: that of the attempt before is needed until something of the next one is on disk."""
    return f"part-{attempt % 2}.bin"
