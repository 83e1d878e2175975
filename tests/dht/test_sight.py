"""Losing and finding half of the DHT is noticed; everyday coming and going is not."""

from btard.dht.sight import LOOKS_AT_FIRST, LOOKS_MISSED, Sight, View


def nodes(*numbers: int) -> frozenset[bytes]:
    """Return node ids."""
    return frozenset(bytes([number]) * 20 for number in numbers)


def settled(*numbers: int) -> Sight:
    """Return a sight that has seen the same nodes for a while."""
    sight = Sight()
    for _ in range(LOOKS_AT_FIRST):
        assert sight.look(nodes(*numbers)) is View.USUAL
    return sight


def test_half_of_the_nodes_gone_is_noticed_once_and_their_return_too() -> None:
    """Lost, then nothing new, then back; a second loss is noticed again."""
    sight = settled(*range(10))
    assert sight.look(nodes(0, 1, 2, 3, 4)) is View.LOST
    assert sight.look(nodes(0, 1, 2, 3, 4)) is View.USUAL
    assert len(sight.missing) == 5
    assert sight.look(nodes(0, 1, 2, 3, 4, 5, 6)) is View.USUAL
    assert sight.look(nodes(*range(8))) is View.BACK
    assert sight.look(nodes(0, 1)) is View.LOST


def test_a_slow_discovery_of_a_loss_is_a_loss() -> None:
    """Dead nodes are found dead one after another; together they count."""
    sight = settled(*range(8))
    views = [sight.look(nodes(*range(left))) for left in (7, 6, 5, 4)]
    assert views == [View.USUAL, View.USUAL, View.USUAL, View.LOST]


def test_everyday_coming_and_going_is_usual() -> None:
    """Single nodes, and nodes long gone, make no news."""
    sight = settled(*range(10))
    for number in range(10):
        assert sight.look(nodes(*range(10)) - nodes(number)) is View.USUAL
    assert sight.look(nodes(*range(8))) is View.USUAL
    for _ in range(LOOKS_MISSED):
        sight.look(nodes(*range(8)))
    assert not sight.missing


def test_those_who_left_for_good_are_given_up() -> None:
    """After a while the loss is forgotten, and those left are the swarm."""
    sight = settled(*range(6))
    assert sight.look(nodes(0, 1, 2)) is View.LOST
    for _ in range(LOOKS_MISSED + 1):
        assert sight.look(nodes(0, 1, 2)) is View.USUAL
    assert sight.look(nodes(0)) is View.USUAL


def test_as_many_strangers_as_acquaintances_are_noticed() -> None:
    """Not while the swarm starts, and not a few."""
    sight = Sight()
    assert [sight.look(nodes(*range(count))) for count in (1, 4, 9)] == [View.USUAL] * 3
    sight = settled(*range(4))
    assert sight.look(nodes(*range(6))) is View.USUAL
    assert sight.look(nodes(*range(12))) is View.MET


def test_with_nobody_left_there_is_nothing_to_compare() -> None:
    """Being alone is said elsewhere."""
    assert settled(*range(6)).look(nodes()) is View.USUAL
