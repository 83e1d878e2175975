"""
A vector that arrives in pieces, in a file that a crash of the process does not empty.

What is in the file is believed for its hash and for nothing else: after a restart it is hashed again, so there
is no record of what had arrived, none to keep in step with the data, and none to be damaged.

The file is the memory as well: a chunk that is right goes there at once, while it is in the cache of the core that
received it, and the vector is the file as the system has it in memory. There is no second copy, and no new memory is
made for one: that takes longer than receiving, decrypting and hashing it together (joining.md, What it costs).
"""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.rules.merkle import compute_leaf
from btard.swarm.state import empty_part

WRITE_BYTES = 128 << 10
"""Bytes written at a time. For more the system takes memory in larger blocks, which costs less, except on a virtual
machine that gives its free memory back to its host, in blocks of 2 MiB, where it costs much more (joining.md)."""


class Assembly:
    """``elements`` float32 numbers whose chunks have these leaf digests, end to end."""

    def __init__(self, path: Path, elements: int, leaves: bytes, chunk_bytes: int) -> None:
        self._path, self._elements, self._leaves, self._chunk_bytes = path, elements, leaves, chunk_bytes
        self._size = 4 * elements
        self._has = bytearray(len(leaves) // 32)
        self._file = -1

    def open(self) -> int:
        """Open the file, made first at its full size if there is none; return the bytes of it that are right already.

        Raises:
            ConfigError: there is no room for it.
        """
        was_there = self._path.is_file() and self._path.stat().st_size == self._size
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not was_there:
                self._path.unlink(missing_ok=True)  # never cut short: somebody may still read a vector from it
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not was_there and self._size:
                os.posix_fallocate(self._file, 0, self._size)
        except OSError as error:
            raise self._explain(error) from None
        if was_there:
            self._look_through()
        return sum(self.count_chunk_bytes(index) for index, has in enumerate(self._has) if has)

    def _explain(self, error: OSError) -> ConfigError:
        reason = error.strerror or error
        return ConfigError(f"cannot write {self._path}: {reason}; the state needs {self._size} bytes there: free space")

    def _look_through(self) -> None:
        buffer = memoryview(bytearray(min(self._chunk_bytes, self._size)))
        index = self._find_written(0)
        while index < len(self._has):
            chunk = buffer[: self.count_chunk_bytes(index)]
            count = os.preadv(self._file, [chunk], index * self._chunk_bytes)
            self._has[index] = count == len(chunk) and self._is_right(index, chunk)
            index = self._find_written(index + 1)

    def _find_written(self, index: int) -> int:
        """The first chunk from ``index`` on of which anything was written: to read others makes memory for them."""
        try:
            return os.lseek(self._file, index * self._chunk_bytes, os.SEEK_DATA) // self._chunk_bytes
        except OSError as error:
            return len(self._has) if error.errno == errno.ENXIO else index

    def _is_right(self, index: int, chunk: memoryview) -> bool:
        return compute_leaf(index, chunk) == self._leaves[32 * index : 32 * index + 32]

    def count_chunk_bytes(self, index: int) -> int:
        """The bytes of a chunk; the last may be short."""
        return min(self._chunk_bytes, self._size - index * self._chunk_bytes)

    def count_bytes(self, chunks: range) -> int:
        """The bytes of some chunks."""
        return sum(map(self.count_chunk_bytes, chunks))

    def save(self, index: int, chunk: memoryview) -> bool:
        """Have a chunk in the file if it is right; else return False.

        Raises:
            ConfigError: the disk does not take it.
        """
        if not self._is_right(index, chunk):
            return False
        start, position = index * self._chunk_bytes, 0
        try:
            while position < len(chunk):
                position += os.pwrite(self._file, chunk[position : position + WRITE_BYTES], start + position)
        except OSError as error:
            raise self._explain(error) from None
        return True

    def keep(self, chunks: range) -> None:
        """Count chunks that were saved as held."""
        self._has[chunks.start : chunks.stop] = b"\x01" * len(chunks)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is held."""
        return all(self._has)

    def find_missing(self, longest: int) -> Iterator[range]:
        """Yield what is not held, at most ``longest`` chunks at a time."""
        start = self._has.find(b"\x00")
        while start >= 0:
            held = self._has.find(b"\x01", start, start + longest)
            stop = held if held >= 0 else min(start + longest, len(self._has))
            yield range(start, stop)
            start = self._has.find(b"\x00", stop)

    def read(self) -> Tensor:
        """The whole vector, float32 of shape (elements,): the file, which its writes do not change."""
        assert self.is_complete
        if not self._elements:
            return empty_part()
        return torch.frombuffer(mmap.mmap(self._file, self._size, access=mmap.ACCESS_COPY), dtype=torch.float32)

    def close(self) -> None:
        """Let go of the file; what was read stays, also when it is removed."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class Arrival:
    """Some chunks as they pass through a window of memory, a multiple of a chunk: each is checked and saved at once."""

    def __init__(self, assembly: Assembly, chunks: range, memory: memoryview) -> None:
        self.memory = memory
        self._assembly, self._chunks = assembly, chunks
        self._saved = self._position = 0  # chunks that are in the file, and their bytes
        self._is_wrong = False
        self._failure: ConfigError | None = None

    def take(self, size: int) -> None:
        """Save the chunks that are complete once ``size`` bytes have come."""
        while self._saved < len(self._chunks) and not self._is_wrong and self._failure is None:
            index = self._chunks[self._saved]
            end = self._position + self._assembly.count_chunk_bytes(index)
            if end > size:
                return
            place = self._position % len(self.memory)
            self._save(index, self.memory[place : place + end - self._position])
            self._saved, self._position = self._saved + 1, end

    def _save(self, index: int, chunk: memoryview) -> None:
        try:
            self._is_wrong = not self._assembly.save(index, chunk)
        except ConfigError as error:
            self._failure = error

    def is_right(self) -> bool:
        """Return whether all chunks are in the file, everything having come.

        Raises:
            ConfigError: the disk did not take one.
        """
        if self._failure is not None:
            raise self._failure
        return not self._is_wrong and self._saved == len(self._chunks)
