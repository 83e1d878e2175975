"""What may not be committed (design 4): such a round's gradient is flagged ``overflow`` instead."""

from torch import Tensor

from btard.robust import is_finite


def guard_overflow(gradient: Tensor) -> bool:
    """Return whether any element is NaN, infinite or beyond 1e30 in size: then commit ``overflow``.

    This is the very test by which others would refuse the values, so that the two never differ.
    """
    return not is_finite(gradient)
