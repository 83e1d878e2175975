"""What a newcomer does before it is admitted: it looks whether the run has begun, and works for a ticket."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from btard.identity import JoinTicket, PeerId, Puzzle
from btard.net import Address, Hub
from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.swarm.compute import Compute
from btard.swarm.joining.fetching_state import Progress as Transfer
from btard.swarm.joining.stranger import FindSeal
from btard.training.address_book import AddressBook
from btard.training.meeting import Endpoint, Search
from btard.training.notebook import NOTEBOOK_FILE, Notebook
from btard.training.solving import Solving, make_lanes, solve_ticket, work_for_identity

log = structlog.get_logger(__name__)

LOOK_ROUND_S = 5.0
"""Between two looks at the newest seal while a ticket is solved: the search follows the rounds, and loses nothing."""
MAX_KNOWN = 64
"""Addresses of members, as we last knew them, that are tried at once."""
FRESH = 2
"""A ticket found earlier is shown again while less than this part of its time is over."""


class TicketSolver:
    """Works for one peer's tickets on all cores of this machine, and remembers in its data directory how far it is."""

    def __init__(self, config: RunConfig, me: PeerId, data_dir: Path, tell: Callable[[Solving], None]) -> None:
        self._config, self._me, self._tell = config, me, tell
        self._notebook = Notebook(data_dir / NOTEBOOK_FILE, me, config.run_id)

    async def solve(self, seal: Seal, find_newer: FindSeal) -> JoinTicket:
        """Return a ticket on the draw of ``seal`` or of a newer one; one found before the last start if it is fresh."""
        found = self._notebook.ticket
        if found is not None and seal.round - found.round < self._config.ticket_window // FRESH:
            return found
        lanes = make_lanes(os.cpu_count() or 1)
        bits = self._config.identity_bits
        nonce = await work_for_identity(self._me, bits, lanes[0], self._notebook)
        return await self._search(self._pose(seal, nonce), lanes, find_newer)

    def spend(self) -> None:
        """Show no ticket again that was found by now: members admit nobody twice by one."""
        self._notebook.spend_ticket()

    def _pose(self, seal: Seal, nonce: int) -> Puzzle:
        terms = self._config.ticket_terms
        return Puzzle(terms.run_id, self._me, nonce, seal.round, seal.q, terms.memory_kib, seal.ticket_bits)

    async def _search(self, puzzle: Puzzle, lanes: Sequence[Compute], find_newer: FindSeal) -> JoinTicket:
        """Search on the newest draw that we hear of."""
        current = [puzzle]

        async def follow() -> None:
            while True:
                await trio.sleep(LOOK_ROUND_S)
                seal = await find_newer()
                if seal.round - current[0].round >= self._config.ticket_window // (2 * FRESH):
                    current[0] = self._pose(seal, puzzle.identity_nonce)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            ticket = await solve_ticket(lambda: current[0], lanes, self._notebook, self._tell)
            nursery.cancel_scope.cancel()
        return ticket


async def reach_anybody(hub: Hub, directory: AddressBook, founder: PeerId, endpoint: Endpoint) -> None:
    """Return once there is a link to somebody: where the ticket says, where members were last, or the founder.

    Raises:
        Unreachable: nobody answers for ``patience_s``.
        Refused: whoever answers belongs to another run or configuration.
    """
    search = Search(trio.current_time() + endpoint.patience_s)
    while not hub.connected:
        async with trio.open_nursery() as nursery:

            async def meet(peer: PeerId | None, address: Address) -> None:
                with search.attempt(address):
                    await hub.connect(peer, address)

            for address in endpoint.bootstrap:
                if founder != hub.me:
                    nursery.start_soon(meet, None, address)
            for peer, address in directory.members[:MAX_KNOWN]:
                if peer != hub.me:
                    nursery.start_soon(meet, peer, address)
        if not hub.connected:
            for address in await directory.find_addresses(founder):
                with search.attempt(address):
                    await hub.connect(founder, address)
        if not hub.connected:
            await search.pause()


def throttle(tell: Callable[[Transfer], None], every_s: float = 1.0) -> Callable[[Transfer], None]:
    """Return a teller that passes on one report in ``every_s`` seconds, and the last one."""
    last = [-every_s]

    def pass_on(progress: Transfer) -> None:
        now = trio.current_time()
        if now - last[0] >= every_s or progress.done >= progress.total:
            last[0] = now
            tell(progress)

    return pass_on
