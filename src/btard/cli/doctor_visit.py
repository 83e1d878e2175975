"""
What the doctor asks of other peers, each question under a deadline; ``doctor_swarm`` judges the answers.

It visits with a key made for the occasion: with our own, the links of a peer of ours that runs would be
taken for older ones and ended. First it only knocks, to learn who is where; then it talks to each peer
once, over one link. Whoever dials it back comes to a door beside that link, which is not used for anything.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace

import trio

from btard.cli.doctor_joining import News
from btard.cli.doctor_swarm import Lookup, Sample, Visit, Whereabouts
from btard.dht import Directory, IdentityWork, open_directory
from btard.errors import ConfigError, NetworkError, Refused, RemoteProtocolError
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, TcpTransport, Terms, is_loopback, open_tcp
from btard.rules.config import RunConfig
from btard.swarm.compute import ThreadCompute
from btard.swarm.joining.asking_lineage import LineAsker
from btard.swarm.peer import find_cause
from btard.training.checkup import DIAL_SECONDS, ask_for_check_up
from btard.training.meeting import LOOPBACK, ask_for_config
from btard.training.notebook import Notebook
from btard.training.solving import work_for_identity
from btard.wire import Ticket

SAMPLES = 3
ASK_SECONDS = 5.0
TALK_SECONDS = 30.0
RESOLVE_SECONDS = 5.0
BOOTSTRAP_SECONDS = 4.0
"""How long the first DHT node is waited for: the directory asks twice meanwhile."""
LOOK_SECONDS = 0.1
WORK_SECONDS = 30.0
"""How long the doctor works for the key that it made; the default takes a second."""
MAX_LOOKUPS = 8
STOPPED = "it stopped answering"


@dataclass(frozen=True)
class Errand:
    """Whom we visit, and where we can be dialled meanwhile; ``port`` 0 means nowhere. ``local`` is our run file."""

    ticket: Ticket
    host: str
    port: int
    dialled_port: int
    known: tuple[PeerId, ...] = ()
    local: RunConfig | None = None


@dataclass(frozen=True)
class Report:
    """What came of it: a visit per address of the ticket, how many DHT nodes we met, and what they found.

    ``nodes`` is None where the identity work that they ask for took too long.
    ``news`` is what the members show of a run that has begun, None where it has not, or nobody gives its run file.
    """

    visits: tuple[Visit, ...]
    nodes: int | None
    lookups: tuple[Lookup, ...]
    news: News | None = None


async def run_errand(errand: Errand) -> Report:
    """Return what the peers of a ticket say; whatever they do, it ends.

    Raises:
        ConfigError: the port was taken meanwhile.
    """
    try:
        return await _run_errand(errand)
    except BaseExceptionGroup as group:
        raise find_cause(group) from None


async def _run_errand(errand: Errand) -> Report:
    visits = await knock_at_all(errand.ticket.run_id, errand.ticket.bootstrap)
    me, terms = Identity.generate(), Terms(errand.ticket.run_id)
    came: set[PeerId] = set()
    async with AsyncExitStack() as stack:
        tcp = await stack.enter_async_context(open_tcp(me, terms, LOOPBACK))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if errand.port:
            door = await stack.enter_async_context(open_tcp(me, terms, Address(errand.host, errand.port)))
            nursery.start_soon(_watch_door, door, came)
        hub = Hub(tcp, me.peer_id)
        await nursery.start(hub.run)
        visits = await talk_to_all(hub, visits, errand)
        news = await ask_for_news(hub, visits, errand)
        report = replace(await _search(me, errand, visits), news=news)
        nursery.cancel_scope.cancel()
    return replace(report, visits=tuple(replace(visit, has_come=visit.peer in came) for visit in report.visits))


async def _watch_door(door: TcpTransport, came: set[PeerId]) -> None:
    """Note who comes to our door, until cancelled."""
    while True:
        link = await door.accept()
        came.add(link.peer)
        await link.aclose()


async def knock_at_all(run_id: bytes, addresses: Sequence[str]) -> tuple[Visit, ...]:
    """Return who of a run answers at each address, and how soon."""
    visits = [Visit(address) for address in addresses]

    async def knock(index: int) -> None:
        visits[index] = await _knock(tcp, addresses[index])

    async with open_tcp(Identity.generate(), Terms(run_id), LOOPBACK) as tcp, trio.open_nursery() as nursery:
        for index in range(len(visits)):
            nursery.start_soon(knock, index)
    return tuple(visits)


async def _knock(tcp: TcpTransport, text: str) -> Visit:
    begun = trio.current_time()
    try:
        link = await tcp.connect(Address.parse(text), None)
    except Refused as error:
        return Visit(text, problem=str(error), is_refused=True)
    except (NetworkError, ConfigError) as error:
        return Visit(text, problem=str(error))
    await link.aclose()
    return Visit(text, link.peer, trio.current_time() - begun)


async def talk_to_all(hub: Hub, visits: Sequence[Visit], errand: Errand) -> tuple[Visit, ...]:
    """Return the visits with what each peer says; one that is at several addresses is asked at the first."""
    told = list(visits)
    first = {visit.peer: index for index, visit in reversed(list(enumerate(visits))) if not visit.problem}

    async def talk(index: int) -> None:
        with trio.move_on_after(TALK_SECONDS) as scope:
            told[index] = await _talk(hub, visits[index], errand)
        if scope.cancelled_caught:
            told[index] = replace(visits[index], silence=STOPPED, config_problem=STOPPED)

    async with trio.open_nursery() as nursery:
        for index in first.values():
            nursery.start_soon(talk, index)
    return tuple(told)


async def _talk(hub: Hub, visit: Visit, errand: Errand) -> Visit:
    """Return the visit with the peer's run file, its clock, its check-up, and its dial to our door."""
    peer = PeerId(visit.peer)
    try:
        await hub.connect(peer, Address.parse(visit.address))
    except (NetworkError, Refused) as error:
        return replace(visit, problem=str(error))
    visit = await _ask_for_config(hub, visit, errand.ticket.run_id)
    try:
        for _ in range(SAMPLES):
            visit = await _take_sample(hub, visit, peer)
        if errand.port:
            answer = await ask_for_check_up(hub, peer, errand.dialled_port, DIAL_SECONDS + ASK_SECONDS)
            visit = replace(visit, answer=answer, dialled=answer.dialled)
    except (NetworkError, RemoteProtocolError) as error:
        return replace(visit, silence=str(error))
    return visit


async def _ask_for_config(hub: Hub, visit: Visit, run_id: bytes) -> Visit:
    try:
        config = await ask_for_config(hub, PeerId(visit.peer), run_id)
    except (NetworkError, Refused) as error:
        return replace(visit, config_problem=str(error))
    return replace(visit, config=config)


async def ask_for_news(hub: Hub, visits: Sequence[Visit], errand: Errand) -> News | None:
    """Return the newest seal of a run that has begun, in a line from its genesis on, through the ticket's seal."""
    config = next((visit.config for visit in visits if visit.config is not None), errand.local)
    members = [PeerId(visit.peer) for visit in visits if visit.answer and visit.answer.members]
    if config is None or config.run_id != errand.ticket.run_id or not members:
        return None
    with trio.move_on_after(TALK_SECONDS):
        try:
            lines = await LineAsker(config, hub, ThreadCompute()).find_line(sorted(members), errand.ticket.seal)
        except Refused as refusal:
            return News(problem=str(refusal), is_refused=True)
        except NetworkError as error:
            return News(problem=str(error))
        return News(lines.line.head.seal)
    return News(problem=STOPPED)


async def _take_sample(hub: Hub, visit: Visit, peer: PeerId) -> Visit:
    """Return the visit with another look at the peer's clock, which showed its time in the middle of the trip."""
    wall_s, begun = time.time(), time.perf_counter()
    answer = await ask_for_check_up(hub, peer, 0, ASK_SECONDS)
    trip_s = time.perf_counter() - begun
    sample = Sample(trip_s, answer.unix_ms / 1000 - wall_s - trip_s / 2)
    return replace(visit, answer=answer, samples=(*visit.samples, sample))


async def _search(me: Identity, errand: Errand, visits: tuple[Visit, ...]) -> Report:
    """Return the report, with what the DHT knows of the founder, of the peers visited and of those met earlier."""
    bootstrap = [(address.host, address.port) for address in parse_all(errand.ticket.bootstrap)]
    met = [visit.peer for visit in visits if visit.peer and not visit.problem]
    wanted = list(dict.fromkeys([errand.ticket.founder, *met, *errand.known]))[:MAX_LOOKUPS]
    place = (errand.host, errand.port)
    work = await _work_for_identity(me.peer_id, errand, visits)
    if work is None:
        return Report(visits, None, ())
    async with open_directory(me, errand.ticket.run_id, place, bootstrap, state_dir=None, work=work) as directory:
        await _wait_for_nodes(directory)
        lookups = tuple([await _look_up(directory, PeerId(peer)) for peer in wanted]) if directory.known_nodes else ()
        return Report(visits, directory.known_nodes, lookups)


async def _work_for_identity(me: PeerId, errand: Errand, visits: Sequence[Visit]) -> IdentityWork | None:
    """Return what DHT nodes ask for before they answer, as a run asks by default if this one's file is not known."""
    config = next((visit.config for visit in visits if visit.config is not None), errand.local) or RunConfig()
    notebook = Notebook(None, me, errand.ticket.run_id)
    with trio.move_on_after(WORK_SECONDS):
        nonce = await work_for_identity(me, config.identity_bits, ThreadCompute(), notebook)
        return IdentityWork(nonce, config.identity_bits)
    return None


async def _wait_for_nodes(directory: Directory) -> None:
    with trio.move_on_after(BOOTSTRAP_SECONDS):
        while not directory.known_nodes:  # noqa: ASYNC110  bounded above
            await trio.sleep(LOOK_SECONDS)


async def _look_up(directory: Directory, peer: PeerId) -> Lookup:
    begun = trio.current_time()
    contact = await directory.find(peer)
    addresses = tuple(str(Address(host, port)) for host, port in contact.addresses) if contact else ()
    return Lookup(peer, trio.current_time() - begun, addresses)


def parse_all(texts: Iterable[str]) -> list[Address]:
    """Return the addresses among some words."""
    found = []
    for text in texts:
        try:
            found.append(Address.parse(text))
        except ConfigError:
            continue
    return found


async def locate(addresses: Sequence[Address]) -> Whereabouts:
    """Return where ``addresses`` are, their names resolved within `RESOLVE_SECONDS`."""
    hosts: set[str] = set()
    with trio.move_on_after(RESOLVE_SECONDS):
        for address in addresses:
            with suppress(OSError, UnicodeError):
                entries = await trio.socket.getaddrinfo(address.host, address.port or None)
                hosts.update(str(entry[4][0]) for entry in entries)
    words = ", ".join(map(str, addresses))
    return Whereabouts(words, frozenset(hosts), all(is_loopback(address.host) for address in addresses))
