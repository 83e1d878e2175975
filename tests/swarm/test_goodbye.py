"""When a member says goodbye."""

from btard.swarm.goodbye import Goodbye


def test_the_round_that_runs_is_finished_first():
    """Whoever is asked in a round leaves with the COMMIT of the next one, and not before."""
    goodbye = Goodbye()
    assert not goodbye.is_due(10**6)
    goodbye.say_after(7)
    assert [goodbye.is_due(number) for number in (6, 7, 8, 9)] == [False, False, True, True]


def test_the_earliest_wish_counts():
    """Asked twice, or beside a round that was set at the start, a peer leaves as soon as it is wished to."""
    goodbye = Goodbye(20)
    for number in (30, 7, 9):
        goodbye.say_after(number)
    assert goodbye.after == 7
