"""What Sybils cost the members: by which part of itself each figure grows, and whether that is too much."""

from collections.abc import Iterable, Mapping

BOUNDED: Mapping[str, str] = {"bytes": "bytes", "cpu_ms": "CPU seconds", "gradients": "gradients"}
"""What may not grow by a tenth, and what people call it."""
MOST_GROWTH = 0.1


def compute_growth(before: Mapping[str, float], after: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Return by which part of itself each figure grew."""
    return {name: round(after[name] / before[name] - 1, 4) for name in names if before[name]}


def find_growth(growth: Mapping[str, float]) -> list[str]:
    """Return which costs of the members grew by too much; what is not bounded is only told."""
    return [
        f"the members' {words} grew by {growth[name]:.1%}; less than {MOST_GROWTH:.0%} is allowed"
        for name, words in BOUNDED.items()
        if growth.get(name, 0.0) >= MOST_GROWTH
    ]
