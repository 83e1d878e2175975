"""A peer that has several addresses, over a network that a test plays: who is dialled when, and what is given up."""

import pytest
import trio

from btard.errors import Refused, Unreachable
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, MemoryNetwork, Terms, connect_to_any
from btard.net.dialling import HEAD_START_S

TERMS = Terms(b"run".ljust(32))
PEER = Identity(b"\1" * 32)
HANGS, DEAD, FOREIGN = Address("hangs.example", 1), Address("dead.example", 1), Address("foreign.example", 1)


class Dialler:
    """A hub of ours whose dials to some addresses hang, fail or are refused; all are noted with their times."""

    def __init__(self) -> None:
        network = MemoryNetwork()
        self.there = network.transport(PEER, TERMS)
        self._transport = network.transport(Identity.generate(), TERMS)
        self._connect = self._transport.connect
        self._transport.connect = self.connect  # type: ignore[method-assign]
        self.hub = Hub(self._transport, self._transport.peer_id)
        self.dialled: list[tuple[float, Address]] = []
        self.given_up: list[Address] = []

    async def connect(self, address: Address, peer: PeerId | None) -> object:
        """Dial, in the way of the address."""
        self.dialled.append((trio.current_time(), address))
        if address == DEAD:
            raise Unreachable("nobody is there")
        if address == FOREIGN:
            raise Refused("another run")
        if address == HANGS:
            try:
                await trio.sleep_forever()
            finally:
                self.given_up.append(address)
        return await self._connect(address, peer)


@pytest.fixture
async def dialler(nursery: trio.Nursery) -> Dialler:
    """A dialler whose hub runs."""
    dialler = Dialler()
    await nursery.start(lambda task_status: dialler.hub.run(task_status=task_status))
    return dialler


async def test_an_address_that_hangs_costs_its_head_start(dialler: Dialler, autojump_clock) -> None:
    """The next address is tried a moment later, beside it; with a link the first is given up."""
    begun = trio.current_time()
    await connect_to_any(dialler.hub, PEER.peer_id, (HANGS, dialler.there.address))
    assert dialler.hub.connected == {PEER.peer_id}
    assert dialler.dialled == [(begun, HANGS), (begun + HEAD_START_S, dialler.there.address)]
    assert dialler.given_up == [HANGS]


async def test_an_address_that_fails_costs_nothing(dialler: Dialler, autojump_clock) -> None:
    """After a failure the next address is tried at once, and one that works ends the search."""
    begun = trio.current_time()
    await connect_to_any(dialler.hub, PEER.peer_id, (DEAD, FOREIGN, dialler.there.address, HANGS))
    assert dialler.dialled == [(begun, DEAD), (begun, FOREIGN), (begun, dialler.there.address)]


@pytest.mark.parametrize(
    ("addresses", "error", "words"),
    [
        ((), Unreachable, "announces no address"),
        ((DEAD,), Unreachable, "nobody is there"),
        ((DEAD, FOREIGN), Unreachable, "nobody is there; another run"),
        ((FOREIGN, FOREIGN), Refused, "another run; another run"),
        ((FOREIGN,), Refused, "another run"),
    ],
)
async def test_nobody_at_any_address(dialler: Dialler, addresses, error, words) -> None:
    """All reasons are told; it is a refusal only where nobody could be of our run."""
    with pytest.raises(error, match=words):
        await connect_to_any(dialler.hub, PEER.peer_id, addresses)
