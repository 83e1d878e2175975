"""
Randomness for tasks, from a seed alone: no generator, no device, no global state.

Everything here is integer arithmetic on a BLAKE3 stream followed by at most one rounding, so two
machines draw the same bits. (torch's generators promise that only for one build on one device.)
"""

import numpy as np
import torch
from torch import Tensor

from btard.identity import Context, expand


def draw_uniform(seed: bytes, length: int) -> Tensor:
    """Return ``length`` float32 values in [-1, 1), multiples of 2^-23, the same bits everywhere."""
    words = np.frombuffer(expand(Context.PARAMETERS, seed, 4 * length), dtype="<u4")
    centred = (words >> 8).astype(np.int32) - (1 << 23)
    return torch.from_numpy(centred.astype(np.float32)) * 2.0**-23


def draw_indices(seed: bytes, count: int, population: int) -> Tensor:
    """Return ``count`` indices below ``population``, with replacement, shape (count,), int64.

    The remainder favours small indices by less than ``population`` / 2^64.
    """
    words = np.frombuffer(expand(Context.MINIBATCH, seed, 8 * count), dtype="<u8")
    return torch.from_numpy((words % np.uint64(population)).astype(np.int64))


def draw_permutation(seed: bytes, length: int) -> Tensor:
    """Return a permutation of ``range(length)``, shape (length,), int64, the same everywhere."""
    keys = np.frombuffer(expand(Context.HOLDOUT, seed, 8 * length), dtype="<u8")
    return torch.from_numpy(np.argsort(keys, kind="stable").astype(np.int64))
