"""The difficulty of join tickets: it follows the demand, step by step, and cannot be driven out of its bounds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config

from btard.rules.difficulty import MAX_RISE, adjust_ticket_bits

CONFIG = make_config(ticket_bits=10)
places = st.integers(1, 64)
epochs = st.lists(places.flatmap(lambda free: st.tuples(st.integers(0, free), st.just(free))), max_size=40)


def play(history, bits=10):
    """Return the difficulty after each epoch of (admitted, places)."""
    course = [bits]
    for admitted, free in history:
        course.append(adjust_ticket_bits(CONFIG, course[-1], admitted, free))
    return course


@given(epochs)
def test_difficulty_stays_within_its_bounds(history):
    """Whatever is admitted, a ticket costs between once and eight times what the run file says (attacks B8d)."""
    assert all(10 <= bits <= 10 + MAX_RISE for bits in play(history))


@given(epochs)
def test_difficulty_moves_by_one_bit_at_most(history):
    """A newcomer's estimate is off by a factor of two per epoch at most."""
    course = play(history)
    assert all(abs(after - before) <= 1 for before, after in pairwise(course))


@given(st.integers(10, 13), places, st.data())
def test_more_admissions_never_make_it_easier(bits, free, data):
    """The difficulty grows with the admissions; nobody lowers it by asking for more places."""
    some = data.draw(st.integers(0, free))
    fewer = data.draw(st.integers(0, some))
    assert adjust_ticket_bits(CONFIG, bits, fewer, free) <= adjust_ticket_bits(CONFIG, bits, some, free)


@pytest.mark.parametrize(
    ("admitted", "free", "after"), [(4, 4, 12), (3, 4, 11), (2, 4, 11), (1, 4, 10), (0, 4, 10), (1, 1, 12), (0, 1, 10)]
)
def test_all_places_taken_raise_it_and_fewer_than_half_lower_it(admitted, free, after):
    """From half of the places on it stays as it was, until all are taken."""
    assert adjust_ticket_bits(CONFIG, 11, admitted, free) == after


def test_a_siege_ends_with_the_besieger():
    """Who fills all places raises the price eightfold; three epochs after he stops it is what it was."""
    siege = play([(4, 4)] * 20)
    assert max(siege) == siege[-1] == 10 + MAX_RISE
    assert play([(0, 4)] * MAX_RISE, siege[-1])[-1] == 10


@pytest.mark.parametrize("bits", [0, 5, 9, 14, 99])
def test_difficulty_of_another_run_is_brought_into_the_bounds(bits):
    """No difficulty that anybody hands over leaves the run's own range."""
    assert 10 <= adjust_ticket_bits(CONFIG, bits, 2, 4) <= 13
