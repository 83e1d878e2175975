"""
Hastening: nobody is blamed for data before it could know that it was due (attacks A6).

Whoever waits for private data says nothing of the phase until it has it, so nobody can see that it is past
the one before. A member that was kept waiting there, for a message that all others have, would be complained
about by all of them at once. So it is sent the messages of the stage that we came through first.
"""

from collections.abc import Awaitable, Callable, Collection

import trio

from btard.identity import PeerId
from btard.swarm.services import Services
from btard.swarm.state import Work


async def ask_and_hasten(
    services: Services, work: Work, find_lacking: Callable[[], Collection[PeerId]], ask: Callable[[], Awaitable[None]]
) -> None:
    """Show those whose data we lack the stage that we came through, ask, and wait as long as asking may take.

    That is 2Δ and a transfer: whoever was behind for want of a message has it after Δ, and sends then.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    due = trio.current_time() + services.deadlines.bulk_s + 2 * services.config.delay_s
    services.broadcast.show_current(find_lacking())
    await services.exchange.attend(work, ask)
    await services.exchange.wait_for(work, lambda: not find_lacking(), max(0.0, due - trio.current_time()))
