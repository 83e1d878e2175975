"""When marks begin to count: at the same place for members that are a phase apart."""

from tests.rules.build import make_config, make_roster

from btard.rules.marks import Marks, make_pair
from btard.rules.seal import Seal
from btard.sim import LinearTask
from btard.swarm.state import State, Work, empty_part

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
PAIR, OTHER = make_pair(A, B), make_pair(C, D)
CONFIG, OPTIMIZER = make_config(), LinearTask().initial_optimizer()


def make_work(number: int, previous: Work | None = None) -> Work:
    """The work on a round that starts with what the one before hands on."""
    seal = Seal(b"", number - 1, 0, b"", b"", b"", ROSTER.members, (), b"", b"q" * 32, 5)
    marks = previous.next_marks if previous else Marks()
    state = State(number, 0, ROSTER, empty_part(), OPTIMIZER, seal, b"", b"", marks=marks)
    return Work(CONFIG, state, previous)


def test_recoveries_mark_from_the_next_round_on() -> None:
    """In the round that is resumed slices still go the way on which they were sent."""
    work = make_work(3)
    work.mark(frozenset({PAIR}), 3)
    assert work.marks == Marks()
    assert make_work(4, work).marks == Marks().with_pairs([PAIR])


def test_member_that_is_already_in_the_next_round_marks_at_once() -> None:
    """It is in COMMIT there; and should the round before be redone, its end will know the pair too."""
    before = make_work(3)
    ahead = make_work(4, before)
    ahead.mark(frozenset({PAIR}), 3)
    assert ahead.marks == Marks().with_pairs([PAIR])
    assert before.marks == Marks()
    assert make_work(4, before).marks == Marks().with_pairs([PAIR])


def test_marks_of_gather_are_void_with_their_attempt() -> None:
    """Some members may have settled the complaint when the attempt ended, and others not."""
    work = make_work(3)
    work.gathered = frozenset({PAIR})
    work.mark(frozenset({OTHER}), 3)
    assert work.next_marks == Marks().with_pairs([PAIR, OTHER])
    work.begin_attempt(ROSTER.without([E]), frozenset(), 1, b"")
    assert work.next_marks == Marks().with_pairs([OTHER])


def test_marks_end_with_their_members() -> None:
    """When one of a pair leaves, nothing is left to be kept apart."""
    work = make_work(3)
    work.marks = Marks().with_pairs([PAIR, OTHER])
    work.begin_attempt(ROSTER.without([A]), frozenset(), 1, b"")
    assert work.marks == Marks().with_pairs([OTHER])
    assert work.relays.between(A, B) is None
    assert work.relays.between(C, D) in {B, E}
