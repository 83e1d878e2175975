"""Memory in which pieces arrive, used again for the next ones: new memory takes longer than what comes into it."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager


class Buffers:
    """Buffers of ``size`` bytes, as many as were ever used at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[memoryview] = []

    @contextmanager
    def lend(self) -> Iterator["Buffer"]:
        """Yield a buffer that takes memory once it is needed; within, it belongs to the caller."""
        buffer = Buffer(self)
        try:
            yield buffer
        finally:
            if buffer.memory is not None:
                self._free.append(buffer.memory)

    def make(self) -> memoryview:
        """Return memory that nobody uses."""
        return self._free.pop() if self._free else memoryview(mmap.mmap(-1, self._size))


class Buffer:
    """A place for one piece."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.memory: memoryview | None = None

    def take(self, size: int) -> memoryview:
        """Return the first ``size`` bytes, to be written."""
        if self.memory is None:
            self.memory = self._buffers.make()
        return self.memory[:size]
