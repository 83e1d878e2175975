"""The bound on what may be committed (design 4: such a round's gradient is flagged ``overflow`` instead)."""

import torch
from torch import Tensor

# Squares and sums of 2^20 such values still fit a float64 by far, and a float32 difference of two is finite.
LARGEST_COMMITTED = 1e30


def guard_overflow(gradient: Tensor) -> bool:
    """Return whether any element is NaN, infinite or beyond 1e30 in size: then commit ``overflow``."""
    if gradient.numel() == 0:
        return False
    # One pass; NaN wins both extremes, and every comparison with NaN is false.
    least, greatest = (float(v) for v in torch.aminmax(gradient))
    return not (least >= -LARGEST_COMMITTED and greatest <= LARGEST_COMMITTED)
