"""What a newcomer does before it is admitted: whom it reaches, which ticket it shows, and what it tells of that."""

import pytest
import trio
from tests.rules.build import make_config

from btard.errors import Unreachable
from btard.identity import Identity, find_flaw
from btard.net import Address, Hub, MemoryNetwork, Terms
from btard.rules.seal import Seal
from btard.swarm.joining.fetching_state import Progress
from btard.training.joining import TicketSolver, reach_anybody, throttle
from btard.training.meeting import Endpoint

CONFIG = make_config(identity_bits=4, ticket_bits=3, ticket_memory_kib=8, ticket_window=16)
ME, FOUNDER, MEMBER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
TERMS = Terms(CONFIG.run_id)


def seal(number, bits=3):
    """A sealed round with a draw of its own."""
    return Seal(
        CONFIG.run_id, number, 0, b"t" * 32, b"s" * 32, b"", (), (), b"p" * 32, bytes([number]) * 32, 5, (), 0, bits
    )  # fmt: skip


async def never():
    """No newer seal is asked for."""
    raise AssertionError


async def solve(directory, number, find_newer=never):
    """The ticket that a solver shows in a round."""
    return await TicketSolver(CONFIG, ME.peer_id, directory, lambda progress: None).solve(seal(number), find_newer)


async def test_ticket_is_one_that_members_take(tmp_path):
    """Worked on the seal's draw, with the difficulty that the seal names."""
    ticket = await solve(tmp_path, 7)
    assert (ticket.peer, ticket.round) == (ME.peer_id, 7)
    assert find_flaw(ticket, CONFIG.ticket_terms, 7, seal(7).q, 3) is None


async def test_fresh_ticket_is_shown_again_and_an_old_one_is_not(tmp_path):
    """A restart within half of its time costs no work; later it would be too old by the time it is drawn."""
    ticket = await solve(tmp_path, 7)
    assert await solve(tmp_path, 14) == ticket
    assert (await solve(tmp_path, 15)).round == 15


def test_reports_of_a_transfer_come_once_a_second_and_at_the_end(autojump_clock):
    """However many chunks arrive, people read a line a second, and the last one."""
    told = []

    async def main():
        tell = throttle(told.append)
        for done in range(1, 101):
            tell(Progress(done, 100, 1.0))
            await trio.sleep(1 / 16)

    trio.run(main, clock=autojump_clock)
    assert [progress.done for progress in told] == [1, 17, 33, 49, 65, 81, 97, 100]


class Book:
    """Where others were last; the DHT knows nobody."""

    def __init__(self, *members):
        self.members = members

    async def find_addresses(self, peer):
        """Return nothing."""
        await trio.lowlevel.checkpoint()
        return ()


async def reach(book, bootstrap, me=ME):
    """The peers that somebody has links to after it reached anybody; a member listens, too."""
    network = MemoryNetwork()
    ours, theirs = (network.transport(identity, TERMS) for identity in (me, MEMBER))
    hub, other = Hub(ours, me.peer_id), Hub(theirs, MEMBER.peer_id)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        await nursery.start(other.run)
        known = book(theirs.address)
        await reach_anybody(hub, known, FOUNDER.peer_id, Endpoint(bootstrap=bootstrap(theirs.address), patience_s=5.0))
        connected = hub.connected
        nursery.cancel_scope.cancel()
    return connected


async def test_whoever_listens_at_the_ticket_s_address_will_do(autojump_clock):
    """The founder may be gone: any member knows the run."""
    assert await reach(lambda _: Book(), lambda address: (address,)) == {MEMBER.peer_id}


async def test_members_are_found_where_they_were_last(autojump_clock):
    """A peer that comes back needs no bootstrap peer."""
    assert await reach(lambda address: Book((MEMBER.peer_id, address)), lambda _: ()) == {MEMBER.peer_id}


async def test_founder_that_comes_back_does_not_ask_itself(autojump_clock):
    """The ticket names its own address; it goes by where the members were."""
    book = lambda address: Book((FOUNDER.peer_id, Address("nowhere", 1)), (MEMBER.peer_id, address))  # noqa: E731
    assert await reach(book, lambda _: (Address("nowhere", 1),), FOUNDER) == {MEMBER.peer_id}


async def test_nobody_there_is_said_after_a_while(autojump_clock):
    """It does not wait for ever."""
    with pytest.raises(ExceptionGroup) as caught:
        await reach(lambda _: Book(), lambda _: (Address("nowhere", 1),))
    assert caught.group_contains(Unreachable)
