"""A peer that has several addresses: they are tried in turn, and one that hangs holds up no other."""

from collections.abc import Sequence

import trio

from btard.errors import NetworkError, Refused, Unreachable
from btard.identity import PeerId, short
from btard.net.address import Address
from btard.net.hub import Hub

HEAD_START_S = 1.0
"""How long an address is tried alone before the next one is tried beside it: more than a handshake usually takes."""


async def connect_to_any(hub: Hub, peer: PeerId, addresses: Sequence[Address]) -> None:
    """Return once there is a link to ``peer``, at whichever of its addresses answers first, best ones given first.

    Raises:
        Unreachable: it answers at none of them, or there is none.
        Refused: at each of them somebody of another run or configuration answers.
    """
    if len(addresses) == 1:
        await hub.connect(peer, addresses[0])
        return
    failures: list[NetworkError | Refused] = []
    async with trio.open_nursery() as nursery:

        async def dial(address: Address, is_over: trio.Event) -> None:
            try:
                await hub.connect(peer, address)
            except (NetworkError, Refused) as error:
                failures.append(error)
            else:
                nursery.cancel_scope.cancel()
            is_over.set()

        for address in addresses:
            is_over = trio.Event()
            nursery.start_soon(dial, address, is_over)
            with trio.move_on_after(HEAD_START_S):
                await is_over.wait()
    if hub.is_connected(peer):
        return
    reasons = "; ".join(map(str, failures)) or f"{short(peer)} announces no address"
    if failures and all(isinstance(error, Refused) for error in failures):
        raise Refused(reasons)
    raise Unreachable(reasons)
