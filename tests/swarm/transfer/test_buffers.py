"""Memory for pieces: one buffer has one user."""

from btard.swarm.joining.buffers import Buffers


def test_memory_is_used_again_once_it_is_given_back() -> None:
    """What is lent at the same time is apart; what comes later is what was given back."""
    buffers = Buffers(8)
    with buffers.lend() as first, buffers.lend() as second:
        first.take(8)[:] = b"11111111"
        second.take(4)[:] = b"2222"
        assert bytes(first.take(8)) == b"11111111"
        given_back = second.memory
    with buffers.lend() as third, buffers.lend() as fourth:
        assert {bytes(third.take(4)), bytes(fourth.take(4))} == {b"1111", b"2222"}
        assert given_back in (third.memory, fourth.memory)


def test_nobody_has_memory_before_something_comes() -> None:
    """A question that is never answered costs none."""
    buffers = Buffers(8)
    with buffers.lend() as idle:
        pass
    assert idle.memory is None
    with buffers.lend() as used:
        assert len(used.take(3)) == 3
