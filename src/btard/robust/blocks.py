"""
Rows read block by block, so that no pass over n slices ever copies them as a whole.

The block size depends on the number of rows only, and blocks are visited in order: equal rows give
equal bits on one machine. A block is read, widened if need be, and worked on in the cache; it is the only copy.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 22
"""What one block of all rows takes, measured best for 8 and for 16 rows."""

MAX_LINE, MIN_LINE = 1 << 18, 1 << 15
"""Bytes of one row in a block: 32,768 to 4,096 elements of float64."""


def compute_block_size(rows: int) -> int:
    """Return the elements per row and block: a power of two that depends on the number of rows alone."""
    line = MAX_LINE
    while line > MIN_LINE and line * rows > BLOCK_BYTES:
        line //= 2
    return line // torch.float64.itemsize


def check_rows(rows: Sequence[Tensor]) -> int:
    """Return the common length of the rows.

    Raises:
        ValueError: no rows, or rows that are not flat float32 CPU vectors of one length.
    """
    if not rows:
        raise ValueError("cannot aggregate no rows")
    length = rows[0].numel()
    for index, row in enumerate(rows):
        if row.dtype != torch.float32 or row.dim() != 1 or row.numel() != length or row.device.type != "cpu":
            raise ValueError(
                f"row {index} is not a flat float32 CPU vector of {length} elements but {row.dtype} {tuple(row.shape)}"
            )
    return length


def iterate_blocks(rows: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice, block): the block is (n, len) float64 and valid until the next one is drawn."""
    size = min(compute_block_size(len(rows)), rows[0].numel())
    if not size:
        return
    whole, total = torch.empty(len(rows), size, dtype=torch.float64), rows[0].numel()
    for start in range(0, total, size):
        where = slice(start, min(start + size, total))
        block = whole[:, : where.stop - start]
        for line, row in zip(block.unbind(), rows, strict=True):
            line.copy_(row.detach()[where])
        yield where, block
