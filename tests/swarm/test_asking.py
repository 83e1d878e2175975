"""Asking in turn: one answer suffices, silence delays nobody, and everything ends in time."""

import trio

from btard.identity import PeerId
from btard.swarm.asking import ask_in_turn

Clock = trio.testing.MockClock
SOURCES = [PeerId(bytes([number]) * 32) for number in range(8)]


async def ask_all(answering: set[int], *, limit_s: float = 5.0) -> tuple[bool, float, int]:
    """Return whether it is held, after how long, and how many were asked; the others never answer."""
    held, asked, started = False, 0, trio.current_time()

    async def ask(source: PeerId) -> None:
        nonlocal held, asked
        asked += 1
        if source[0] not in answering:
            await trio.sleep_forever()
        await trio.sleep(0.1)
        held = True

    result = await ask_in_turn(SOURCES, ask, lambda: held, spread_s=2.0, limit_s=limit_s)
    return result, trio.current_time() - started, asked


async def test_the_first_that_answers_ends_it(autojump_clock: Clock) -> None:
    """Nobody else is asked."""
    assert await ask_all({0}) == (True, 0.1, 1)


async def test_the_last_is_asked_in_time_though_all_others_are_silent(autojump_clock: Clock) -> None:
    """Seven silent members cost less than the spread."""
    held, seconds, asked = await ask_all({7})
    assert (held, asked) == (True, 8)
    assert seconds < 2.0


async def test_nobody_answers(autojump_clock: Clock) -> None:
    """It ends at the limit."""
    assert await ask_all(set()) == (False, 5.0, 8)


async def test_nobody_to_ask(autojump_clock: Clock) -> None:
    """It ends at once."""

    async def ask(source: PeerId) -> None:
        raise AssertionError

    assert not await ask_in_turn([], ask, lambda: False, spread_s=1.0, limit_s=1.0)
