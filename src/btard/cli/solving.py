"""How the search for a join ticket goes, in words."""

import math

from btard.training.solving import Solving


def describe_solving(progress: Solving) -> str:
    """Return how the search goes in words; the time left is the same at every moment, for a search has no memory."""
    line = f"solving a join ticket on round {progress.round}: {progress.evaluations:,} evaluations"
    if progress.is_new_round:
        line += ", on the draw of a newer round now (nothing is lost by that)"
    if progress.per_second:
        mean, likely = format_duration(progress.mean_s), format_duration(progress.likely_s)
        line += f", {progress.per_second:.1f}/s; {mean} left on average, with 95% no more than {likely}"
    return line


def format_duration(seconds: float) -> str:
    """Return a time as one says it: 48 s, 3 min, 2.4 h."""
    if not math.isfinite(seconds) or seconds >= 100 * 86_400:
        return "for ever"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
