"""The doctor among peers that help, lie, or say nothing; over TCP on loopback."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from btard.cli.doctor_swarm import Visit
from btard.cli.doctor_visit import ASK_SECONDS, STOPPED, Errand, knock_at_all, locate, parse_all, talk_to_all
from btard.dht.server import wall_clock_ms
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, TcpTransport, Terms, open_tcp
from btard.rules.config import RunConfig
from btard.swarm.frames import Kind
from btard.training.checkup import CheckUps, Dialled, Stage
from btard.training.meeting import CONFIG_TIMEOUT_S, serve_config
from btard.wire import Ticket, encode

LOOPBACK = Address("127.0.0.1", 0)
CONFIG = RunConfig(elements=100, chunk_size=4)
TERMS = Terms(CONFIG.run_id, CONFIG.field_digests)
Serve = Callable[[Hub, TcpTransport], None]


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """A virtual clock that jumps only when the sockets have been quiet for a moment."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


def help_all(hub: Hub, tcp: TcpTransport) -> None:
    """Serve as a member does."""
    serve_config(hub, CONFIG)
    CheckUps(hub, tcp, lambda: Stage(7, 3, 2, 20))


def lie(config: bytes, answer: bytes) -> Serve:
    """Return what gives these bytes for a run file and a check-up."""

    def serve(hub: Hub, tcp: TcpTransport) -> None:
        for kind, body in ((Kind.CONFIG, config), (Kind.CHECK_UP, answer)):

            async def say(peer: PeerId, question: bytes, body: bytes = body) -> tuple[bytes, None]:
                await trio.lowlevel.checkpoint()
                return body, None

            hub.serve[kind] = say

    return serve


OpenPeer = Callable[[Serve], Awaitable[tuple[PeerId, Address]]]


@pytest.fixture
async def open_peer(nursery: trio.Nursery) -> OpenPeer:
    """Return a function that opens a peer of the run, which serves what it is told to."""

    async def hold(serve: Serve, *, task_status: trio.TaskStatus[tuple[PeerId, Address]]) -> None:
        identity = Identity.generate()
        async with open_tcp(identity, TERMS, LOOPBACK) as tcp, trio.open_nursery() as inner:
            hub = Hub(tcp, identity.peer_id)
            serve(hub, tcp)
            await inner.start(hub.run)
            task_status.started((identity.peer_id, tcp.address))

    return lambda serve: nursery.start(hold, serve)


def serve_nothing(hub: Hub, tcp: TcpTransport) -> None:
    """Be a peer that never answers."""


async def call_on(*addresses: object, door: TcpTransport | None = None) -> tuple[Visit, ...]:
    """Return what comes of a visit to some addresses."""
    ticket = Ticket(CONFIG.run_id, bytes(32), tuple(map(str, addresses)))
    port = door.address.port if door else 0
    me = Identity.generate()
    async with open_tcp(me, Terms(CONFIG.run_id), LOOPBACK) as tcp, trio.open_nursery() as nursery:
        hub = Hub(tcp, me.peer_id)
        await nursery.start(hub.run)
        knocked = await knock_at_all(ticket.run_id, ticket.bootstrap)
        visits = await talk_to_all(hub, knocked, Errand(ticket, "127.0.0.1", port, port))
        nursery.cancel_scope.cancel()
    return visits


async def test_an_honest_member(open_peer):
    """A member gives its run file, the time and the stage of the run."""
    peer, address = await open_peer(help_all)
    [visit] = await call_on(address)
    assert (visit.peer, visit.config, visit.problem, visit.silence) == (peer, CONFIG, "", "")
    assert visit.answer is not None
    assert (visit.answer.round, visit.answer.members) == (7, 3)
    assert min(abs(sample.ahead_s) for sample in visit.samples) < 60
    assert visit.dialled is None


@pytest.mark.parametrize("ahead_s", [400, -400])
async def test_a_peer_whose_clock_is_wrong(open_peer, ahead_s):
    """A peer's clock is found ahead by as much as it is, to within half of the shortest trip, and a millisecond."""

    def serve(hub: Hub, tcp: TcpTransport) -> None:
        serve_config(hub, CONFIG)
        CheckUps(hub, tcp, Stage, lambda: wall_clock_ms() + 1000 * ahead_s)

    _, address = await open_peer(serve)
    [visit] = await call_on(address)
    best = min(visit.samples, key=lambda sample: sample.trip_s)
    assert abs(best.ahead_s - ahead_s) <= best.trip_s / 2 + 0.002


async def test_a_door_that_is_not_ours_is_asked_for_in_vain(open_peer):
    """The member dials the port that it is given, and finds another key there."""
    _, address = await open_peer(help_all)
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as door:
        [visit] = await call_on(address, door=door)
    assert visit.dialled is Dialled.FAILED


async def test_one_peer_at_two_addresses(open_peer):
    """Whoever is at several addresses answers at each, and is asked at the first."""
    peer, address = await open_peer(help_all)
    first, second = await call_on(address, f"localhost:{address.port}")
    assert (first.peer, second.peer) == (peer, peer)
    assert (first.config, second.config) == (CONFIG, None)


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        (b"rounds = 7", encode([1])),
        (b"\x1b[2J = 1", b"\xff" * 100),
        (b"surprise = 1", encode([0, "x" * 65, 0, 1, "b", "t", 0, 0, 0, 0])),
        (b"#" * 900_000, b"#" * 900_000),
    ],
)
async def test_a_liar_is_one_of_several(open_peer, config, answer):
    """Whatever a peer says instead of the truth, it is no answer, and the others are heard."""
    _, dishonest = await open_peer(lie(config, answer))
    _, honest = await open_peer(help_all)
    liar, member = await call_on(dishonest, honest)
    assert "not the ticket's run" in liar.config_problem
    assert liar.silence.startswith("not a valid message") or "longer" in liar.silence
    assert (liar.answer, liar.config) == (None, None)
    assert len(liar.config_problem) < 300
    assert (member.config, member.silence) == (CONFIG, "")


async def test_a_peer_that_says_nothing(open_peer, clock):
    """Silence costs a bounded time, and is told."""
    _, address = await open_peer(serve_nothing)
    begun = trio.current_time()
    [visit] = await call_on(address)
    assert "did not answer" in visit.config_problem
    assert "did not answer" in visit.silence
    assert trio.current_time() - begun < CONFIG_TIMEOUT_S + ASK_SECONDS + 1


async def test_a_peer_that_never_says_what_came_of_its_dial(open_peer, clock):
    """Who tells the time and is silent about our door has told the time, and its silence is known."""

    def be_mute_about_doors(hub: Hub, tcp: TcpTransport) -> None:
        help_all(hub, tcp)
        serve = hub.serve[Kind.CHECK_UP]

        async def answer(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            if body != encode([0]):
                await trio.sleep_forever()
            return await serve(peer, body)

        hub.serve[Kind.CHECK_UP] = answer

    _, address = await open_peer(be_mute_about_doors)
    async with open_tcp(Identity.generate(), TERMS, LOOPBACK) as door:
        [visit] = await call_on(address, door=door)
    assert visit.answer is not None
    assert visit.dialled is None
    assert "did not answer" in visit.silence


async def test_a_peer_that_answers_late_each_time(open_peer, clock, monkeypatch):
    """Who lets every answer come at the last moment is left in the end."""

    def dawdle(hub: Hub, tcp: TcpTransport) -> None:
        help_all(hub, tcp)
        for kind, pause_s in ((Kind.CONFIG, CONFIG_TIMEOUT_S - 1), (Kind.CHECK_UP, 20.0)):
            serve = hub.serve[kind]

            async def late(peer: PeerId, body: bytes, serve=serve, pause_s=pause_s) -> tuple[bytes, None]:
                await trio.sleep(pause_s)
                return await serve(peer, body)

            hub.serve[kind] = late

    monkeypatch.setattr("btard.cli.doctor_visit.ASK_SECONDS", 25.0)
    _, address = await open_peer(dawdle)
    [visit] = await call_on(address)
    assert (visit.silence, visit.config_problem) == (STOPPED, STOPPED)


async def test_nobody_and_nonsense(clock):
    """Closed ports, mute servers and words that are no address each give one line."""
    [mute] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = mute.socket.getsockname()[1]
    silent, wrong = await call_on(f"127.0.0.1:{port}", "nonsense")
    await mute.aclose()
    [closed] = await call_on(f"127.0.0.1:{port}")
    assert "does not answer within" in silent.problem
    assert "is not an address" in wrong.problem
    assert "Connection refused" in closed.problem


async def test_a_peer_of_another_run(nursery):
    """Whoever belongs to another run refuses, which is something else than silence."""
    async with open_tcp(Identity.generate(), Terms(b"x" * 32), LOOPBACK) as foreign:
        [visit] = await call_on(foreign.address)
    assert visit.is_refused
    assert "another run" in visit.problem


async def test_names_are_resolved():
    """The host that we announce stands for its literal addresses, an unknown one for none."""
    where = await locate([Address("localhost", 4001)])
    assert where.is_loopback
    assert where.hosts & {"127.0.0.1", "::1"}
    assert (await locate([Address("a" * 70, 4001)])).hosts == frozenset()
    both = await locate([Address("127.0.0.1", 4001), Address("192.0.2.7", 4001)])
    assert (both.hosts, both.is_loopback) == ({"127.0.0.1", "192.0.2.7"}, False)
    assert both.address == "127.0.0.1:4001, 192.0.2.7:4001"
    assert parse_all(["a:1", "nonsense"]) == [Address("a", 1)]
