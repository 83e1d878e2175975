"""
Links: this peer stays connected to every member of the roster, found through the directory.

Either side makes the link, whoever can: a member that announces no address, or one where nobody gets through,
dials all the others, at the start and whenever a link is lost, and takes part like everybody else. Two such
members have no link: what they have to say to each other comes late, through the others.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog
import trio

from btard.errors import NetworkError, Refused, Unreachable
from btard.identity import PeerId, short
from btard.net import Address, Hub, connect_to_any
from btard.rules.roster import Roster

log = structlog.get_logger(__name__)

RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts to reach a member; the last one repeats."""
FOUNDER_PATIENCE_S = 60.0
"""How long the founder is looked for before genesis."""
PATIENCE_S = 5.0
"""How long the member with the higher id waits to be dialled before it dials itself."""


async def dial_founder(hub: Hub, directory: "Directory", founder: PeerId) -> None:
    """Return once there is a link to the founder.

    Raises:
        Unreachable: not within FOUNDER_PATIENCE_S.
        Refused: it belongs to another run or configuration.
    """
    with trio.move_on_after(FOUNDER_PATIENCE_S):
        while not hub.is_connected(founder):
            with suppress(NetworkError):
                await connect_to_any(hub, founder, await directory.find_addresses(founder))
            if not hub.is_connected(founder):
                await trio.sleep(RETRY_S[-1] / 5)
        return
    raise Unreachable(f"the founder {short(founder)} does not answer")


class Directory(Protocol):
    """Where members are found; a hint only, for whoever answers must prove its identity."""

    async def find_addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where ``peer`` says it listens; empty if unknown."""


class Links:
    """One task per member of the roster that keeps a link to it."""

    def __init__(
        self,
        hub: Hub,
        me: PeerId,
        directory: Directory,
        roster: Callable[[], Roster],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._hub, self._me, self._directory, self._roster = hub, me, directory, roster
        self._patience_s = patience_s
        self._kept: set[PeerId] = {me}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Keep links to all other members until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self.follow()
            await trio.sleep_forever()

    def follow(self) -> None:
        """Keep links to those also who have become members meanwhile."""
        for peer in self._roster().members if self._nursery else ():
            if peer not in self._kept and self._nursery:
                self._kept.add(peer)
                self._nursery.start_soon(self._keep, peer)

    async def _keep(self, peer: PeerId) -> None:
        if peer < self._me:
            await trio.sleep(self._patience_s)
        attempt = 0
        while peer in self._roster():
            if self._hub.is_connected(peer):
                await self._hub.wait_lost(peer)
                attempt = 0
            else:
                await self._dial(peer)
                attempt += 1
            await trio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
        self._kept.discard(peer)

    async def _dial(self, peer: PeerId) -> None:
        try:
            await connect_to_any(self._hub, peer, await self._directory.find_addresses(peer))
        except (NetworkError, Refused) as error:
            log.debug("no link", peer=short(peer), reason=str(error))
