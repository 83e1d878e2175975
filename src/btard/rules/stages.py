"""Where the stages of a run stand to each other: through which an attempt passes, one after another."""

from collections.abc import Iterable
from functools import lru_cache

from btard.rules.messages import Phase, Stage


def find_later(stages: Iterable[Stage], than: Stage) -> tuple[Stage, ...]:
    """Return the stages to which a run comes after ``than``, a place in an attempt; none that is no such place."""
    place = order_stage(than)
    return tuple(stage for stage in stages if order_stage(stage) > place)


@lru_cache(maxsize=1024)  # asked about every stage held, whenever a member waits
def order_stage(stage: Stage) -> tuple[int | tuple[int, int], ...]:
    """Stages as a run passes through them, which opens a round again under a new attempt, and never goes back to one.

    Disputes have two places in an attempt, complaints three. What is no place of any attempt comes first.
    """
    if not is_position(stage):
        return ()
    return stage.attempt, stage.round, _STEPS[stage.phase, stage.serial]


_STEPS = {
    (Phase.HELLO, 0): (0, 0),
    (Phase.COMMIT, 0): (1, 0),
    (Phase.DISPUTE_PUBLISH, 0): (1, 1),
    (Phase.VOTE, 0): (1, 2),
    (Phase.AGGREGATE, 0): (2, 0),
    (Phase.PUBLISH, 0): (2, 1),
    (Phase.ATTEST, 0): (2, 2),
    (Phase.REVEAL, 0): (3, 0),
    (Phase.PUBLISH, 1): (3, 1),
    (Phase.ATTEST, 1): (3, 2),
    (Phase.CHECK, 0): (4, 0),
    (Phase.PUBLISH, 2): (4, 1),
    (Phase.ATTEST, 2): (4, 2),
    (Phase.CONFIRM, 0): (5, 0),
    (Phase.DISPUTE_PUBLISH, 1): (5, 1),
    (Phase.VOTE, 1): (5, 2),
    (Phase.AGREE, 0): (6, 0),
}
"""Where each phase of the fast path stands in its attempt; a position that is none of these is no position."""
LAST_SERIAL = max(serial for _, serial in _STEPS)


def is_position(stage: Stage) -> bool:
    """Return whether a view can be taken in this stage."""
    return (stage.phase, stage.serial) in _STEPS


def is_ending(stage: Stage, round_number: int, attempt: int) -> bool:
    """Return whether a stage of an attempt may be the last of a round."""
    is_here = (stage.round, stage.attempt) == (round_number, attempt)
    return is_here and _STEPS[stage.phase, stage.serial] >= _STEPS[Phase.CONFIRM, 0]
