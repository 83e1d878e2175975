"""The turnstile before a member's answers: whoever asks much waits, and no crowd is answered at one go."""

import trio

from btard.identity import PeerId
from btard.net import Hub, Pace, find_block

BLOCK = 8.0, 128
TOTAL = 32.0, 256
"""Questions of strangers answered a second on average, and at once: of an address block, and of all."""
PEER = 32.0, 512
"""The same for each member and each candidate; who fetches a state asks for some hundred pieces of one member."""


class Turnstile:
    """Lets questions through one by one, strangers' at the pace of their block and of all, others' at their own."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._gate = hub, trio.Lock()
        self._blocks, self._total, self._peers = Pace(*BLOCK), Pace(*TOTAL), Pace(*PEER)

    async def enter(self, peer: PeerId) -> None:
        """Return when a question of ``peer`` is in time; a peer has few questions that wait.

        Of those whose time it is, one goes on at a time: the rounds have their turn in between.
        """
        if self._hub.is_stranger(peer):
            await _wait_for_turn(self._blocks, find_block(self._hub.find_host(peer)))
            await _wait_for_turn(self._total, "")
        else:
            await _wait_for_turn(self._peers, peer)
        async with self._gate:  # is passed on in the next turn of the event loop at the earliest
            pass


async def _wait_for_turn(pace: Pace, key: str | PeerId) -> None:
    while wait_s := pace.find_wait(key, trio.current_time()):  # noqa: ASYNC110 - time is what we wait for
        await trio.sleep(wait_s)
    pace.count(key, trio.current_time())
