"""Finding a run by a ticket: over real TCP on loopback."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
import trio

from btard.errors import Refused, Unreachable
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, Terms, open_tcp
from btard.net.tcp import HANDSHAKE_SECONDS
from btard.rules.config import RunConfig
from btard.swarm.frames import Kind
from btard.training.meeting import Endpoint, Search, fetch_config, reach_founder, serve_config
from btard.wire import Ticket

LOOPBACK = Address("127.0.0.1", 0)
FOUNDER = Identity(b"\1" * 32)
CONFIG = RunConfig(founder=FOUNDER.peer_id.hex(), elements=100, chunk_size=4)
OTHER = replace(CONFIG, rounds=7)

OpenHub = Callable[..., Awaitable[tuple[Hub, Address]]]


@pytest.fixture
async def open_hub(nursery: trio.Nursery) -> OpenHub:
    """Return a function that opens a peer's hub, which gives ``served`` (if any) as its configuration."""

    async def hold(
        identity: Identity,
        run_id: bytes,
        served: RunConfig | None,
        *,
        task_status: trio.TaskStatus[tuple[Hub, Address]],
    ) -> None:
        async with open_tcp(identity, Terms(run_id), LOOPBACK) as tcp, trio.open_nursery() as inner:
            hub = Hub(tcp, identity.peer_id)
            if served is not None:
                serve_config(hub, served)
            await inner.start(hub.run)
            task_status.started((hub, tcp.address))

    async def open_hub(
        identity: Identity | None = None, run_id: bytes = CONFIG.run_id, served: RunConfig | None = None
    ) -> tuple[Hub, Address]:
        return await nursery.start(hold, identity or Identity.generate(), run_id, served)

    return open_hub


def ticket(*addresses: Address) -> Ticket:
    """A ticket of the run."""
    return Ticket(CONFIG.run_id, FOUNDER.peer_id, tuple(map(str, addresses)))


class Known:
    """A directory that knows where some peers are."""

    def __init__(self, addresses: dict[PeerId, Address] | None = None) -> None:
        self.addresses = addresses or {}
        self.asked: list[PeerId] = []

    async def find_addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where a peer is."""
        await trio.lowlevel.checkpoint()
        self.asked.append(peer)
        return (self.addresses[peer],) if peer in self.addresses else ()


async def test_configuration_comes_from_a_peer(open_hub):
    """Whoever holds only a ticket gets the very configuration of its run."""
    _, address = await open_hub(served=CONFIG)
    assert CONFIG == await fetch_config(Identity.generate(), ticket(address))


async def test_configuration_of_another_run_is_refused(open_hub):
    """A peer that gives another run's configuration is found out by its digest."""
    _, address = await open_hub(served=OTHER)
    with pytest.raises(Refused, match="not the ticket's run"):
        await fetch_config(Identity.generate(), ticket(address))


@pytest.mark.parametrize("answer", [b"\xff\xfe", b"rounds = 'x'", b"#" * 70_000, b""])
async def test_garbage_for_a_configuration_is_refused(open_hub, answer):
    """Whatever bytes a peer gives for a configuration, it is refused, and nothing else happens."""
    hub, address = await open_hub()

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        return answer, None

    hub.serve[Kind.CONFIG] = serve
    with pytest.raises(Refused, match="not the ticket's run"):
        await fetch_config(Identity.generate(), ticket(address))


async def test_one_liar_does_not_hide_the_others(open_hub):
    """The next address is asked when the first belongs to another run or gives another configuration."""
    _, foreign = await open_hub(run_id=b"x" * 32)
    _, liar = await open_hub(served=OTHER)
    _, honest = await open_hub(served=CONFIG)
    assert CONFIG == await fetch_config(Identity.generate(), ticket(foreign, liar, honest))


@pytest.fixture
async def deaf_address(nursery: trio.Nursery) -> Address:
    """Return an address at which connections are accepted and nothing is ever said."""

    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    [listener] = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
    return Address("127.0.0.1", listener.socket.getsockname()[1])


async def test_an_address_that_hangs_delays_nobody(open_hub, deaf_address):
    """All addresses are asked at once: a deaf one costs no timeout, for the configuration or for the founder."""
    _, address = await open_hub(FOUNDER, served=CONFIG)
    hub, _ = await open_hub()
    with trio.fail_after(HANDSHAKE_SECONDS / 2):
        assert CONFIG == await fetch_config(Identity.generate(), ticket(deaf_address, address))
        await reach_founder(hub, Known(), FOUNDER.peer_id, Endpoint(bootstrap=(deaf_address, address)))
    assert hub.is_connected(FOUNDER.peer_id)


async def test_a_liar_is_not_the_last_word_while_others_may_come(autojump_clock):
    """Where one refuses and another is down we go on, with growing pauses; where everybody refuses we do not."""
    search = Search(trio.current_time() + 10)
    moments = []
    for _ in range(5):
        with search.attempt("liar"):
            raise Refused("another run")
        with search.attempt("late"):
            raise Unreachable("nobody")
        await search.pause()
        moments.append(round(trio.current_time(), 3))
    assert moments == [1.0, 2.5, 4.75, 8.125, 10.0]
    with search.attempt("liar"):
        raise Refused("another run")
    with pytest.raises(Refused, match="liar: another run"):
        await search.pause()


async def test_a_liar_is_named_when_nobody_else_comes(open_hub):
    """When time is over the error says who refused us and who is down."""
    _, liar = await open_hub(served=OTHER)
    with pytest.raises(Refused, match=r"not the ticket's run.*Of the others: cannot reach 127\.0\.0\.1:9"):
        await fetch_config(Identity.generate(), ticket(liar, Address("127.0.0.1", 9)), 0)


async def test_nobody_there():
    """A ticket without addresses is unreachable, at once if there is no patience."""
    with pytest.raises(Unreachable, match="names no address"):
        await fetch_config(Identity.generate(), ticket(), 0)


async def test_founder_at_the_bootstrap_address(open_hub):
    """A founder at the ticket's address is reached without asking the directory."""
    _, address = await open_hub(FOUNDER)
    hub, _ = await open_hub()
    directory = Known()
    await reach_founder(hub, directory, FOUNDER.peer_id, Endpoint(bootstrap=(address,)))
    assert hub.is_connected(FOUNDER.peer_id)
    assert directory.asked == []


async def test_founder_found_through_another_member(open_hub):
    """Where another member answers, the founder is looked up."""
    member, other = Identity.generate(), Known()
    _, at_member = await open_hub(member)
    _, at_founder = await open_hub(FOUNDER)
    other.addresses[FOUNDER.peer_id] = at_founder
    hub, _ = await open_hub()
    await reach_founder(hub, other, FOUNDER.peer_id, Endpoint(bootstrap=(at_member,)))
    assert hub.connected == {member.peer_id, FOUNDER.peer_id}


async def test_founder_found_without_any_bootstrap_peer(open_hub):
    """Where no address of the ticket answers, the directory may still know the founder, from earlier days."""
    _, at_founder = await open_hub(FOUNDER)
    hub, _ = await open_hub()
    known = Known({FOUNDER.peer_id: at_founder})
    await reach_founder(hub, known, FOUNDER.peer_id, Endpoint(bootstrap=(Address("127.0.0.1", 9),)))
    assert hub.connected == {FOUNDER.peer_id}


async def test_founder_nobody_knows(open_hub):
    """Where members answer but none knows the founder, the error says so."""
    _, at_member = await open_hub()
    hub, _ = await open_hub()
    with pytest.raises(Unreachable, match="is not among those who answer"):
        await reach_founder(hub, Known(), FOUNDER.peer_id, Endpoint(bootstrap=(at_member,), patience_s=0))


async def test_peers_of_another_run_are_no_way_to_the_founder(open_hub):
    """Who finds only peers of another run is refused at once, however long it would wait."""
    _, foreign = await open_hub(run_id=b"x" * 32)
    hub, _ = await open_hub()
    with pytest.raises(Refused, match="belongs to another run"):
        await reach_founder(hub, Known(), FOUNDER.peer_id, Endpoint(bootstrap=(foreign,), patience_s=1e6))
