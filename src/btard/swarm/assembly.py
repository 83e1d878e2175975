"""
A vector that arrives in pieces, in a file that a crash does not empty.

What is in the file is believed for its hash and for nothing else: after a restart it is hashed again, so there
is no record of what had arrived, none to keep in step with the data, and none to be damaged.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from btard.errors import ConfigError
from btard.rules.merkle import compute_leaf
from btard.swarm.state import empty_part


class Assembly:
    """``elements`` float32 numbers whose chunks have these leaf digests, end to end; memory is the file's."""

    def __init__(self, path: Path, elements: int, leaves: bytes, chunk_bytes: int) -> None:
        self._path, self._elements, self._leaves, self._chunk_bytes = path, elements, leaves, chunk_bytes
        self._size = 4 * elements
        self._has = bytearray(len(leaves) // 32)
        self._file = -1
        self._data = memoryview(bytearray())

    def open(self) -> int:
        """Map the file, made first at its full size if there is none; return the bytes of it that are right already.

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
            reason = error.strerror or error
            raise ConfigError(
                f"cannot write {self._path}: {reason}; the state needs {self._size} bytes there: free space"
            ) from None
        if self._size:
            self._data = memoryview(mmap.mmap(self._file, self._size))
        if was_there:
            self._look_through()
        return sum(self._count_bytes(index) for index, has in enumerate(self._has) if has)

    def _look_through(self) -> None:
        for index in range(len(self._has)):
            self._has[index] = self.is_right(range(index, index + 1))

    def _count_bytes(self, index: int) -> int:
        return min(self._chunk_bytes, self._size - index * self._chunk_bytes)

    def view(self, chunks: range) -> memoryview:
        """The memory of some chunks, to be written."""
        return self._data[chunks.start * self._chunk_bytes : chunks.stop * self._chunk_bytes]

    def is_right(self, chunks: range) -> bool:
        """Return whether what is in the file are these chunks."""
        return all(
            compute_leaf(index, self.view(range(index, index + 1))) == self._leaves[32 * index : 32 * index + 32]
            for index in chunks
        )

    def keep(self, chunks: range) -> None:
        """Count chunks that are right as held."""
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
        """The whole vector, float32 of shape (elements,); changes of it do not reach the file."""
        assert self.is_complete
        if not self._elements:
            return empty_part()
        return torch.frombuffer(mmap.mmap(self._file, self._size, access=mmap.ACCESS_COPY), dtype=torch.float32)

    def close(self) -> None:
        """Let go of the file; tensors that were read stay as they are."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._data = memoryview(bytearray())
