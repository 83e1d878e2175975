"""Every piece belongs to one source at a time, and nobody waits for the slow."""

import pytest
import trio

from btard.identity import PeerId
from btard.swarm.joining.pieces import PieceBoard
from btard.swarm.joining.sources import Sources

Clock = trio.testing.MockClock
ONE, TWO, THREE = (PeerId(bytes([number]) * 32) for number in range(3))
PIECES = [range(number, number + 1) for number in range(6)]


async def work(board: PieceBoard, source: PeerId, seconds: float) -> list[int]:
    """Fetch pieces in so many seconds each until there is none; return those that were finished."""
    done = []
    while (claim := await board.take(source)) is not None:
        with claim.scope:
            await trio.sleep(seconds)
        if not claim.is_lost:
            board.finish(claim)
            done.append(claim.piece.start)
    return done


async def race(*seconds: float) -> tuple[dict[PeerId, list[int]], float]:
    """What each of some sources fetched, and how long all took together."""
    board, done = PieceBoard(PIECES, shortest_s=1.0), {}

    async def run(source: PeerId, each_s: float) -> None:
        done[source] = await work(board, source, each_s)

    async with trio.open_nursery() as nursery:
        for source, each_s in zip((ONE, TWO, THREE), seconds, strict=False):
            nursery.start_soon(run, source, each_s)
    assert sorted(number for fetched in done.values() for number in fetched) == [0, 1, 2, 3, 4, 5]
    return done, trio.current_time()


async def test_equals_share(autojump_clock: Clock) -> None:
    """Two of one speed take half each."""
    done, seconds = await race(1.0, 1.0)
    assert [len(done[ONE]), len(done[TWO]), seconds] == [3, 3, 3.0]


async def test_the_fast_take_over_from_the_slow(autojump_clock: Clock) -> None:
    """What has been under way four times as long as one of ours takes, and for a second, is taken over."""
    done, seconds = await race(0.5, 1000.0)
    assert (done[TWO], seconds) == ([], 3.0)


async def test_somewhat_slower_is_not_too_slow(autojump_clock: Clock) -> None:
    """Nothing is taken from one that takes twice as long."""
    done, _ = await race(1.0, 2.0)
    assert [len(done[ONE]), len(done[TWO])] == [4, 2]


async def test_whoever_has_shown_nothing_takes_nothing_over(autojump_clock: Clock) -> None:
    """A source that waits from the start does not know what is slow."""
    board = PieceBoard(PIECES[:1], shortest_s=1.0)
    first = await board.take(ONE)
    assert first is not None
    with trio.move_on_after(1000.0) as patience:
        await board.take(TWO)
    assert patience.cancelled_caught
    board.give_back(first)
    second = await board.take(TWO)
    assert second is not None
    assert second.piece == PIECES[0]


@pytest.mark.parametrize("others", [0, 1])
def test_the_last_source_is_never_too_slow(others: int) -> None:
    """Whom nobody could replace is asked on."""
    sources = Sources((ONE, TWO)[: 1 + others])
    for _ in range(5):
        sources.strike(ONE)
    assert sources.is_live(ONE) == (not others)


def test_a_lie_is_told_though_another_reason_came_first() -> None:
    """The first reason stands against later ones, and not against a lie."""
    sources = Sources((ONE,))
    sources.drop(ONE, "it is slow")
    sources.drop(ONE, "it is gone")
    assert sources.faults[ONE].reason == "it is slow"
    sources.drop(ONE, "it lied", lied=True)
    sources.drop(ONE, "it lied again", lied=True)
    assert (sources.faults[ONE].reason, sources.faults[ONE].lied) == ("it lied", True)
