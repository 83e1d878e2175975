"""
A vector that arrives in pieces, in memory, and in a file that a crash does not empty.

What is in the file is believed for its hash and for nothing else: after a restart it is hashed again, so there
is no record of what had arrived, none to keep in step with the data, and none to be damaged.

The file is written past the system's cache where it lets us: a second copy of the state in memory costs more
than the disk does.
"""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.rules.merkle import compute_leaf
from btard.swarm.state import empty_part

BLOCK = 4096
"""What disks write at a time: sizes and places of direct writes are multiples of it."""

MADV_POPULATE_WRITE = 23
"""Of Linux 5.14 and later. Large pages cost a new process more than small ones: see joining.md, What it costs."""


class Assembly:
    """``elements`` float32 numbers whose chunks have these leaf digests, end to end."""

    def __init__(self, path: Path, elements: int, leaves: bytes, chunk_bytes: int) -> None:
        self._path, self._elements, self._leaves, self._chunk_bytes = path, elements, leaves, chunk_bytes
        self._size = 4 * elements
        self._has = bytearray(len(leaves) // 32)
        self._file = self._direct = -1
        self._memory: mmap.mmap | None = None
        self._data = memoryview(b"")

    def open(self) -> int:
        """Open the file, made first at its full size if there is none; return the bytes of it that are right already.

        Raises:
            ConfigError: there is no room for it.
        """
        was_there = self._path.is_file() and self._path.stat().st_size == self._size
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not was_there and self._size:
                os.ftruncate(self._file, 0)
                os.posix_fallocate(self._file, 0, self._size)
        except OSError as error:
            raise self._explain(error) from None
        self._direct = self._open_direct()
        if self._size:
            self._memory = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._data = memoryview(self._memory)
        if was_there:
            self._look_through()
        return sum(self._count_bytes(index) for index, has in enumerate(self._has) if has)

    def _explain(self, error: OSError) -> ConfigError:
        reason = error.strerror or error
        return ConfigError(f"cannot write {self._path}: {reason}; the state needs {self._size} bytes there: free space")

    def _open_direct(self) -> int:
        """A descriptor past the cache; the ordinary one where the file system has no such thing."""
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
        except (OSError, AttributeError):
            return self._file

    def _look_through(self) -> None:
        for index in range(len(self._has)):
            os.preadv(self._file, [self.view(range(index, index + 1))], index * self._chunk_bytes)
            self._has[index] = self._is_right(index)

    def _is_right(self, index: int) -> bool:
        return compute_leaf(index, self.view(range(index, index + 1))) == self._leaves[32 * index : 32 * index + 32]

    def _count_bytes(self, index: int) -> int:
        return min(self._chunk_bytes, self._size - index * self._chunk_bytes)

    def count_bytes(self, chunks: range) -> int:
        """The bytes of some chunks."""
        return sum(map(self._count_bytes, chunks))

    def view(self, chunks: range) -> memoryview:
        """The memory of some chunks, to be written."""
        return self._data[chunks.start * self._chunk_bytes : chunks.stop * self._chunk_bytes]

    def prepare(self, chunks: range) -> memoryview:
        """Be ``view``; the memory is there already, which costs half of having each page come when it is written."""
        view, start = self.view(chunks), chunks.start * self._chunk_bytes
        first = start - start % mmap.PAGESIZE
        if self._memory is not None and view and sys.platform == "linux":
            with suppress(OSError):  # an older kernel
                self._memory.madvise(MADV_POPULATE_WRITE, first, start + len(view) - first)
        return view

    def save(self, chunks: range) -> bool:
        """Have what is in memory of some chunks in the file if they are right; else return False.

        Raises:
            ConfigError: the disk does not take them.
        """
        if not all(map(self._is_right, chunks)):
            return False
        data, offset = self.view(chunks), chunks.start * self._chunk_bytes
        try:
            while data:
                is_aligned = len(data) % BLOCK == 0 and offset % BLOCK == 0
                written = os.pwrite(self._direct if is_aligned else self._file, data, offset)
                data, offset = data[written:], offset + written
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
        """The whole vector, float32 of shape (elements,): the memory that it arrived in."""
        assert self.is_complete
        return torch.frombuffer(self._data, dtype=torch.float32) if self._elements else empty_part()

    def close(self) -> None:
        """Let go of the file; what was read stays."""
        for descriptor in {self._file, self._direct} - {-1}:
            os.close(descriptor)
        self._file = self._direct = -1
