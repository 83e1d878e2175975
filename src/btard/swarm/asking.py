"""Asking members for data, one after another without waiting for the silent ones."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from btard.identity import PeerId


async def ask_in_turn(
    sources: Sequence[PeerId],
    ask: Callable[[PeerId], Awaitable[None]],
    is_held: Callable[[], bool],
    *,
    spread_s: float,
    limit_s: float,
) -> bool:
    """Ask all sources within ``spread_s`` seconds, until one delivers; return whether the data is held.

    Whoever does not answer delays the others by a fraction only: many silent members together must not
    make anybody late. At most ``limit_s`` seconds pass.
    """
    if is_held() or not sources:
        return is_held()

    async def ask_one(source: PeerId) -> None:
        await ask(source)
        if is_held():
            nursery.cancel_scope.cancel()

    with trio.move_on_after(limit_s):
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(ask_one, source)
                await trio.sleep(spread_s / len(sources))
    return is_held()
