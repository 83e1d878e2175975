"""Check-ups: what a member tells a newcomer, and whom it dials back; over TCP on loopback."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest
import trio

from btard.errors import ConnectionLost, RemoteProtocolError, RequestTimedOut
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, TcpTransport, Terms, open_tcp
from btard.swarm.frames import Kind
from btard.training.checkup import (
    DIAL_SECONDS,
    MAX_ORIGINS,
    PAUSE_SECONDS,
    CheckUps,
    Dialled,
    Stage,
    Turns,
    ask_for_check_up,
    is_dialled_back,
)
from btard.wire import PROTOCOL, encode

LOOPBACK = Address("127.0.0.1", 0)
TERMS = Terms(b"run".ljust(32))
STAGE = Stage(7, 5, 4, 120)
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Peer:
    """A peer on loopback: its hub, which listens at ``address``, and a door where it may be dialled back."""

    hub: Hub
    tcp: TcpTransport
    door: TcpTransport

    @property
    def port(self) -> int:
        """The port of the door."""
        return self.door.address.port


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """A virtual clock that jumps only when the sockets have been quiet for a moment."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


OpenPeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def open_peer(nursery: trio.Nursery) -> OpenPeer:
    """Return a function that opens a peer: a hub, and beside it a transport of the same key."""

    async def hold(identity: Identity, *, task_status: trio.TaskStatus[Peer]) -> None:
        async with (
            open_tcp(identity, TERMS, LOOPBACK) as tcp,
            open_tcp(identity, TERMS, LOOPBACK) as door,
            trio.open_nursery() as inner,
        ):
            hub = Hub(tcp, identity.peer_id)
            await inner.start(hub.run)
            task_status.started(Peer(hub, tcp, door))

    async def open_peer(identity: Identity | None = None) -> Peer:
        return await nursery.start(hold, identity or Identity.generate())

    return open_peer


@pytest.fixture
async def member(open_peer: OpenPeer) -> Peer:
    """A member that gives check-ups."""
    member = await open_peer()
    CheckUps(member.hub, member.tcp, lambda: STAGE)
    return member


@pytest.fixture
async def asker(open_peer: OpenPeer, member: Peer) -> Peer:
    """A newcomer with a link to the member."""
    asker = await open_peer()
    await asker.hub.connect(member.hub.me, member.tcp.address)
    return asker


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this machine at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def ask(asker: Peer, member: Peer, port: int) -> Dialled:
    """Return what came of a dial to ``port``."""
    return (await ask_for_check_up(asker.hub, member.hub.me, port, PATIENCE_S)).dialled


@pytest.mark.parametrize(
    ("host", "port", "listen", "is_dialled"),
    [
        ("203.0.113.5", 4001, "0.0.0.0", True),
        ("2001:db8::5", 4001, "::", True),
        ("fe80::1%eth0", 4001, "::", True),
        ("203.0.113.5", 22, "0.0.0.0", False),
        ("127.0.0.1", 4001, "127.0.0.1", True),
        ("127.0.0.1", 4001, "localhost", True),
        ("127.0.0.1", 4001, "127.0.0.1 ::1", True),
        ("127.0.0.1", 4001, "127.0.0.1 198.51.100.1", False),
        ("127.0.0.1", 4001, "0.0.0.0", False),
        ("::1", 4001, "198.51.100.1", False),
        ("0.0.0.0", 4001, "127.0.0.1", False),
        ("224.0.0.1", 4001, "0.0.0.0", False),
        ("", 4001, "127.0.0.1", False),
        ("db.internal", 4001, "127.0.0.1", False),
    ],
)
def test_whom_a_member_dials(host, port, listen, is_dialled):
    """Literal addresses of others at unprivileged ports; this machine only if nobody else can have a link to us."""
    assert is_dialled_back(host, port, listen.split()) == is_dialled


def test_turns():
    """Nobody has a turn while another has, an origin again only after a pause, others at once."""
    turns = Turns()
    assert turns.take("a", 0.0)
    assert not turns.take("b", 0.0)
    turns.release()
    assert not turns.take("a", PAUSE_SECONDS - 0.1)
    assert turns.take("b", PAUSE_SECONDS - 0.1)
    turns.release()
    assert turns.take("a", PAUSE_SECONDS)


def test_turns_remember_a_bounded_number_of_origins():
    """However many origins ask, a bounded number is remembered."""
    turns = Turns()
    for number in range(2 * MAX_ORIGINS):
        assert turns.take(str(number), 0.0)
        turns.release()
    assert len(turns._last) == MAX_ORIGINS


async def test_a_member_tells_about_itself(asker, member):
    """Without a port nothing is dialled, and the answer has the member's versions and how far the run is."""
    answer = await ask_for_check_up(asker.hub, member.hub.me, 0, PATIENCE_S)
    assert (answer.dialled, answer.host, answer.protocol) == (Dialled.NOT_ASKED, "127.0.0.1", PROTOCOL)
    assert Stage(answer.round, answer.members, answer.links, answer.gradient_ms) == STAGE


async def test_an_open_door_is_reached(asker, member, nursery):
    """The member itself comes to the asker's door, and says so; its link to the asker stays."""
    seen = []

    async def open_the_door() -> None:
        link = await asker.door.accept()
        seen.append(link.peer)
        await link.aclose()

    nursery.start_soon(open_the_door)
    assert await ask(asker, member, asker.door.address.port) is Dialled.REACHED
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [member.hub.me]
    assert asker.hub.is_connected(member.hub.me)


async def test_a_door_of_somebody_else_does_not_count(asker, member, open_peer):
    """Where another key answers at the asker's address, the asker is not reachable there."""
    other = await open_peer()
    assert await ask(asker, member, other.door.address.port) is Dialled.FAILED


async def test_a_closed_door(asker, member, silent_port):
    """A port at which nobody listens is told at once."""
    assert await ask(asker, member, silent_port) is Dialled.FAILED


async def test_a_silent_door(asker, member, clock):
    """Where a connection is taken and nothing is said, the member gives up after DIAL_SECONDS."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    begun = trio.current_time()
    assert await ask(asker, member, listener.socket.getsockname()[1]) is Dialled.SILENT
    assert DIAL_SECONDS <= trio.current_time() - begun < DIAL_SECONDS + 2
    await listener.aclose()


async def test_one_dial_at_a_time(asker, member, silent_port, clock):
    """While the member dials, and for a while afterwards, it dials nobody of that origin."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    results = []

    async def knock() -> None:
        results.append(await ask(asker, member, listener.socket.getsockname()[1]))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(knock)
    assert results == [Dialled.BUSY, Dialled.BUSY, Dialled.SILENT]
    await trio.sleep(PAUSE_SECONDS)
    assert await ask(asker, member, silent_port) is Dialled.FAILED
    assert await ask(asker, member, silent_port) is Dialled.BUSY
    await listener.aclose()


async def test_a_privileged_port_is_not_dialled(asker, member):
    """A member does not knock where services of the system listen."""
    assert await ask(asker, member, 22) is Dialled.UNWILLING


@pytest.mark.parametrize(
    "body", [b"", b"\xff", encode([70_000]), encode([-1]), encode([1, 2]), encode(["22"]), b"x" * 99]
)
async def test_nonsense_for_a_question_ends_the_link(asker, member, body):
    """Whoever asks nonsense loses its link, and nothing else happens."""
    with pytest.raises(ConnectionLost):
        await asker.hub.request(member.hub.me, Kind.CHECK_UP, body, timeout_s=PATIENCE_S)


@pytest.mark.parametrize("answer", [b"", encode([1]), encode([0, "h", 9, 1, "b", "t", 0, 0, 0, 0]), b"x" * (1 << 19)])
async def test_nonsense_for_an_answer(asker, member, answer):
    """Whatever a lying member answers, huge answers included, the asker is told that it is no answer."""

    async def lie(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        return answer, None

    member.hub.serve[Kind.CHECK_UP] = lie
    with pytest.raises(RemoteProtocolError):
        await ask(asker, member, 0)


async def test_silence_for_an_answer(asker, open_peer, clock):
    """A member that knows no check-ups, as an older btard, costs the asker its patience and no more."""
    older = await open_peer()
    await asker.hub.connect(older.hub.me, older.tcp.address)
    with pytest.raises(RequestTimedOut):
        await ask(asker, older, 0)
