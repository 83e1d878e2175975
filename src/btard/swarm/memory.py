"""
Memory for vectors and their parts, used again from round to round.

Memory that is new costs eight times as much to write to as memory that is there (docs/explanation/performance.md),
and a round lets go of as much as it takes: what the last one let go is handed out again.

Rules of this file

1. A block belongs to whoever can reach it: a tensor, a view of one, bytes that a link is still sending. It comes back
   when the last reference is gone, never because somebody says so: nothing can be handed out twice.
2. What is kept without use is never more than what is in use.
"""

import threading
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_BYTES = 1 << 18
"""Below this the allocator's own way is as cheap."""
SLACK = 1.25
"""How much larger than asked for a block may be: parts differ by a chunk from round to round."""
GRAIN_BITS = 4
"""Leading bits of a block's size that may differ from zero: the next part, a chunk longer, then fits as well. What
nobody writes to costs no memory."""

Block = NDArray[np.uint8]


class Memory:
    """Blocks in use and blocks that came back; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[Block] = deque()
        self._free: list[Block] = []
        self.bytes_in_use = 0

    @property
    def bytes_kept(self) -> int:
        """What is kept and not in use."""
        return sum(block.nbytes for block in self._free)

    def empty(self, elements: int) -> Tensor:
        """Return a float32 vector of shape (elements,) whose values are whatever was there before."""
        size = 4 * elements
        if size < LEAST_BYTES:
            return torch.empty(elements, dtype=torch.float32)
        block = self._take(size)
        # Made of a memoryview: views of a view of an array refer to the array itself, and would outlive the lease.
        lease = np.frombuffer(block.data, dtype=np.float32, count=elements)
        weakref.finalize(lease, self._take_back, block).atexit = False
        return torch.from_numpy(lease)

    def _take(self, size: int) -> Block:
        step = 1 << max(0, size.bit_length() - GRAIN_BITS)
        room = -(-size // step) * step
        with self._lock:
            self._settle()
            fitting = [place for place, block in enumerate(self._free) if size <= block.nbytes <= SLACK * size]
            best = min(fitting, key=lambda place: self._free[place].nbytes, default=None)
            block = np.empty(room, dtype=np.uint8) if best is None else self._free.pop(best)
            self.bytes_in_use += block.nbytes
            return block

    def _take_back(self, block: Block) -> None:
        """Whoever collects garbage may come here, in the middle of anything, so this waits for no lock."""
        self._returned.append(block)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Keep what came back; what exceeds the second rule is given up, the oldest first."""
        while self._returned:
            block = self._returned.popleft()
            self._free.append(block)
            self.bytes_in_use -= block.nbytes
        while self.bytes_kept > self.bytes_in_use:
            del self._free[0]


_MEMORY = Memory()
"""That of the process, like its allocator's: threads and peers of one process share it."""


def empty_vector(elements: int) -> Tensor:
    """Return a float32 vector of shape (elements,) in memory that may have been used; its values are arbitrary."""
    return _MEMORY.empty(elements)
