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
"""Bytes of one row in a block: 65,536 to 8,192 elements of float32, half as many of float64."""


def compute_block_size(rows: int, dtype: torch.dtype) -> int:
    """Return the elements per row and block: a power of two that depends on the number of rows and the type alone."""
    line = MAX_LINE
    while line > MIN_LINE and line * rows > BLOCK_BYTES:
        line //= 2
    return line // dtype.itemsize


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


def iterate_blocks(rows: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice, block): the block is (n, len) of the type asked for and valid until the next one is drawn."""
    size = min(compute_block_size(len(rows), dtype), rows[0].numel())
    if not size:
        return
    whole, total = torch.empty(len(rows), size, dtype=dtype), rows[0].numel()
    values = [row.detach() for row in rows]
    for start in range(0, total, size):
        where = slice(start, min(start + size, total))
        block = whole[:, : where.stop - start]
        _fill(block, [row[where] for row in values] if size < total else values)
        yield where, block


def _fill(block: Tensor, pieces: list[Tensor]) -> None:
    """Copy every piece to its line; of another type, line by line, for a stack would widen in a pass of its own."""
    if block.dtype == torch.float32 and block.is_contiguous():
        torch.stack(pieces, out=block)
        return
    for line, piece in zip(block.unbind(), pieces, strict=True):
        line.copy_(piece)
