"""
Rows read block by block, so that no pass over n slices ever copies them as a whole.

The block size depends on the number of rows only, and blocks are visited in order: equal rows give
equal bits on one machine. Work on a block stays in the cache; one block of all rows is the only copy.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

BLOCK_CELLS = 1 << 20
"""Elements of all rows in one block: 4 MiB of float32, measured best for 16 rows on one and two threads."""

MAX_BLOCK, MIN_BLOCK = 1 << 16, 1 << 12


def compute_block_size(rows: int) -> int:
    """Return the elements per row and block: a power of two that depends on nothing but the number of rows."""
    size = MAX_BLOCK
    while size > MIN_BLOCK and size * rows > BLOCK_CELLS:
        size //= 2
    return size


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


def _cut(rows: list[Tensor], size: int) -> Iterable[tuple[Tensor, ...] | list[Tensor]]:
    """Return the pieces of all rows, block by block; short rows are one block as they are."""
    return zip(*(torch.split(row, size) for row in rows), strict=True) if rows[0].numel() > size else [rows]


def iterate_float32(rows: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice, block): the block is (n, len) float32 and valid until the next one is drawn."""
    count, size = len(rows), compute_block_size(len(rows))
    flat = torch.empty(count * min(size, rows[0].numel()))
    start = 0
    for pieces in _cut([row.detach() for row in rows], size):
        length = pieces[0].numel()
        block = flat[: count * length].view(count, length)
        torch.stack(pieces, out=block)
        yield slice(start, start + length), block
        start += length


def iterate_float64(rows: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice, block): the block is (n, len) float64 and valid until the next one is drawn."""
    count, size = len(rows), compute_block_size(len(rows))
    flat = torch.empty(count * min(size, rows[0].numel()), dtype=torch.float64)
    for where, block in iterate_float32(rows):
        wide = flat[: block.numel()].view(block.shape)
        wide.copy_(block)
        yield where, wide
