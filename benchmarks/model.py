"""
What a swarm of any size costs, from what a few sizes were measured to cost.

Per peer and round, CPU seconds are a + b·n + c·n² with no term below zero, and bytes of the protocol n - 1 times such a
polynomial: each of the others is sent the same messages, and one of the five holds something for every part. Data
is two vectors less one's own part, sent and received. On a link of its own a peer's round takes

    hops · latency + (data + protocol) / bandwidth + CPU seconds

which overlaps nothing: sending, computing and waiting one after another, so it is no lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

POWERS = (0, 1, 2)


def fit_polynomial(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, ...]:
    """Return (a, b, c), none below zero, of the a + b·n + c·n² with the least sum of squared relative errors."""
    matrix = np.array([[size**power for power in POWERS] for size in sizes], dtype=np.float64)
    target = np.array(values, dtype=np.float64)
    best, least = (float(target.mean()), 0.0, 0.0), np.inf
    for count in range(1, len(POWERS) + 1):
        for chosen in combinations(POWERS, min(count, len(sizes))):
            weighted = matrix[:, chosen] / target[:, None]
            factors = np.linalg.lstsq(weighted, np.ones(len(target)), rcond=None)[0]
            error = float(np.sum((weighted @ factors - 1) ** 2))
            if (factors >= 0).all() and error < least - 1e-12:
                given = dict(zip(chosen, factors.tolist(), strict=True))
                best, least = tuple(given.get(power, 0.0) for power in POWERS), error
    return best


def evaluate(factors: Sequence[float], size: float) -> float:
    """Return a + b·n + c·n²."""
    return sum(factor * size**power for power, factor in zip(POWERS, factors, strict=True))


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Return p of the power law n^p nearest to the values, in logarithms; None for fewer than two sizes."""
    if len(set(sizes)) < 2 or min(values) <= 0:
        return None
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 3)


def count_data_bytes(peers: int, elements: int) -> float:
    """Return the bytes of slices and parts that a peer sends: its vector out, its part to all others."""
    return 2 * 4 * elements * (peers - 1) / peers


@dataclass(frozen=True)
class Costs:
    """The costs per peer and round of a vector of ``elements`` numbers, as functions of the number of peers."""

    elements: int
    bytes_to_each: tuple[float, ...]
    cpu_s: tuple[float, ...]
    hops: float

    @classmethod
    def fit(
        cls, elements: int, peers: Sequence[int], protocol_bytes: Sequence[float], cpu_s: Sequence[float], hops: float
    ) -> "Costs":
        """The costs that pass nearest to what was measured."""
        to_each = [total / (count - 1) for count, total in zip(peers, protocol_bytes, strict=True)]
        return cls(elements, fit_polynomial(peers, to_each), fit_polynomial(peers, cpu_s), hops)

    def protocol_bytes(self, peers: int) -> float:
        """Return the bytes of the protocol that a peer sends."""
        return (peers - 1) * evaluate(self.bytes_to_each, peers)


def compute_seconds(hops: float, latency_s: float, sent: float, bits_per_s: float, cpu_s: float) -> float:
    """Return the seconds of a round where every peer has a link, and a core, of its own."""
    return hops * latency_s + 8 * sent / bits_per_s + cpu_s


def compute_error(predicted: float, measured: float) -> float:
    """Return how far the prediction is off, as a share of what was measured."""
    return predicted / measured - 1
