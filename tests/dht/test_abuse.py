"""A swarm under abuse carries on: after every attack each node still finds all others."""

from time import monotonic

import msgspec
import pytest
import trio

from btard.dht import Directory, IdentityWork, contact_key, open_contact, open_directory, sign_contact
from btard.dht.blocks import customer_of
from btard.dht.datagram import Kind, body_of, node_id_of, read_header
from btard.dht.limits import TokenBucket
from btard.dht.messages import (
    FindNode,
    FindRecord,
    FoundNodes,
    FoundRecord,
    Ping,
    Pong,
    Request,
    Store,
    Stored,
    decode_answer,
    encode_body,
)
from btard.dht.protocol import ANSWER_SECONDS
from btard.dht.server import wall_clock_ms
from btard.errors import LocalProtocolError
from btard.identity import Identity
from btard.identity.work import find_identity_nonce, is_identity_worked

from .hostile import LOOPBACK, RUN_ID, Respond, Stranger, all_find_all, open_stranger, open_swarm, wait_until

PING = encode_body(Ping())
PONG = encode_body(Pong())
WORK_BITS = 8


def table_of(directory: Directory) -> dict[bytes, tuple[str, int]]:
    """Return the routing table: node id to address."""
    buckets = directory._server.protocol.router.buckets
    return {node.id: (node.ip, node.port) for bucket in buckets for node in bucket.get_nodes()}


def id_of(directory: Directory) -> bytes:
    """Return the node id of a directory."""
    return bytes(directory._server.node.id)


def work_of(identity: Identity) -> IdentityWork:
    """Return identity work of some bits."""
    nonce = find_identity_nonce(identity.peer_id, WORK_BITS, 0, 1 << 20)
    assert nonce is not None
    return IdentityWork(nonce, WORK_BITS)


async def join(stranger: Stranger, directories: list[Directory]) -> None:
    """Get a serving stranger into every routing table, by the rules."""

    async def is_known() -> bool:
        for directory in directories:
            await stranger.send(PING, directory.port)
        await trio.sleep(0.05)
        return all(stranger.node_id in table_of(directory) for directory in directories)

    await wait_until(is_known)


async def ask(stranger: Stranger, directory: Directory, request: Request) -> object:
    """Return the decoded answer of a node to a well-formed request, or ``None``."""
    await stranger.send(encode_body(request), directory.port, id_of(directory))
    while (data := await stranger.receive()) is not None:
        header = read_header(RUN_ID, data)
        if header is not None and header.kind is Kind.ANSWER:
            return decode_answer(body_of(data))
    return None


async def test_malformed_datagrams_are_survived() -> None:
    """Junk, stock packets, and well-signed packets with junk inside neither stop a node nor get an answer."""
    bodies = [b"", b"\xc1", b"\x91" * 2000, b"\xdd\xff\xff\xff\xff", msgspec.msgpack.encode(["stun"])]
    bodies += [msgspec.msgpack.encode(body) for body in (["ping", 1], ["find_node", 7], ["store", b"k", None], {}, 5)]
    raw = [b"", b"\x00" * 21, b"\x00" + bytes(20) + b"\xc1", b"BTD\x02", bytes(9000), b"\xff" * 2560]
    async with open_swarm(3) as (identities, directories), open_stranger() as stranger:
        for directory in directories:
            for data in raw:
                await stranger.socket.sendto(data, (LOOPBACK, directory.port))
            for kind in Kind:
                for body in bodies:
                    await stranger.send(body, directory.port, id_of(directory), kind)
        assert await stranger.receive(0.3) is None
        await wait_until(lambda: all_find_all(identities, directories))


async def test_a_node_without_identity_work_is_nobody() -> None:
    """Neither asked nor asking is a node heard whose key has no work behind it; with work it is."""
    me, other = Identity(b"m" * 32), Identity(b"o" * 32)
    idle = next(nonce for nonce in range(99) if not is_identity_worked(other.peer_id, nonce, WORK_BITS))
    for nonce, is_heard in ((idle, False), (work_of(other).nonce, True)):
        async with open_stranger(other, nonce) as stranger, trio.open_nursery() as nursery:
            nursery.start_soon(stranger.serve, lambda _: PONG)
            home, door = (LOOPBACK, 0), [(LOOPBACK, stranger.port)]
            async with open_directory(me, RUN_ID, home, door, state_dir=None, work=work_of(me)) as directory:
                await directory.find(me.peer_id)  # once it has knocked at its bootstrap address
                assert (stranger.requests > 0, stranger.node_id in table_of(directory)) == (True, is_heard)
                async with open_stranger(other, nonce) as asking:
                    assert isinstance(await ask(asking, directory, Ping()), Pong) == is_heard
            nursery.cancel_scope.cancel()


async def test_cancelled_lookups_are_survived() -> None:
    """Lookups cancelled while a silent node is asked leave no question behind and end nothing."""
    async with open_swarm(3) as (identities, directories), open_stranger() as silent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(silent.serve, lambda _: PONG)
            await join(silent, directories)
            nursery.cancel_scope.cancel()
        protocol = directories[0]._server.protocol
        for _ in range(20):
            with trio.move_on_after(0.01):
                await directories[0].find(Identity.generate().peer_id)

        async def none_is_open() -> bool:
            return not protocol._questions  # those of the background task come and go

        await wait_until(none_is_open)
        await trio.sleep(ANSWER_SECONDS)  # until every timer that was set has fired
        await wait_until(lambda: all_find_all(identities, directories))


def _junk_for(victim: Identity) -> dict[str, Respond]:
    """Return ways to answer wrongly by name; each keeps answering pings, to stay in the routing tables."""
    key = contact_key(RUN_ID, victim.peer_id)
    thief = Identity.generate()
    forged = sign_contact(thief, RUN_ID, [("192.0.2.66", 6)], 2**62, wall_clock_ms() + 60_000)
    foreign = sign_contact(victim, b"f" * 32, [("192.0.2.66", 6)], 2**62, wall_clock_ms() + 60_000)
    expired = sign_contact(victim, RUN_ID, [("192.0.2.66", 6)], 2**62, wall_clock_ms() - 1)
    eternal = sign_contact(victim, RUN_ID, [("192.0.2.66", 6)], 2**62, wall_clock_ms() + 10**9)
    replayed = sign_contact(victim, RUN_ID, [("192.0.2.66", 6)], 1, wall_clock_ms() + 60_000)
    fakes = tuple((bytes([number]) + key[1:], LOOPBACK, 9) for number in range(16))
    odd = tuple((bytes([number]) * 20, host, 9) for number, host in enumerate(("0.0.0.0", "224.0.0.1", "x", "::1")))
    raw = {
        "list for a record": msgspec.msgpack.encode(["record", [1], []]),
        "dictionary for nodes": msgspec.msgpack.encode(["record", None, {"a": 1}]),
        "sixty nodes": msgspec.msgpack.encode(["record", None, [fakes[0]] * 60]),
        "oversized record": msgspec.msgpack.encode(["record", bytes(2000), []]),
        "answer of another kind": encode_body(Stored(True)),
        "deep nesting": b"\x91" * 2000,
        "forged record": encode_body(FoundRecord(forged, ())),
        "foreign record": encode_body(FoundRecord(foreign, ())),
        "expired record": encode_body(FoundRecord(expired, ())),
        "eternal record": encode_body(FoundRecord(eternal, ())),
        "replayed record": encode_body(FoundRecord(replayed, ())),
        "sixteen fakes": encode_body(FoundRecord(None, fakes)),
        "odd addresses": encode_body(FoundRecord(None, odd)),
    }

    def answer_with(body: bytes) -> Respond:
        nodes = FoundNodes(fakes if body == raw["sixteen fakes"] else ())
        return lambda request: (
            PONG if isinstance(request, Ping) else encode_body(nodes) if isinstance(request, FindNode) else body
        )

    return {name: answer_with(body) for name, body in raw.items()}


@pytest.mark.parametrize("name", list(_junk_for(Identity(bytes(32)))))
async def test_evil_answers_are_survived(name: str) -> None:
    """Whatever a member of the DHT answers, lookups end in time with the truth, and no fake is believed."""
    async with open_swarm(3) as (identities, directories), open_stranger() as evil, trio.open_nursery() as nursery:
        nursery.start_soon(evil.serve, _junk_for(identities[1])[name])
        await join(evil, directories)
        await wait_until(lambda: all_find_all(identities, directories))
        assert evil.requests > 0
        real = {id_of(directory) for directory in directories} | {evil.node_id}
        assert all(set(table_of(directory)) <= real for directory in directories)
        nursery.cancel_scope.cancel()


async def test_node_ids_without_a_node_never_enter_the_table() -> None:
    """Sixty signed pings from one socket, none of whose keys answers when asked back, change no table."""
    async with open_swarm(2) as (identities, directories), open_stranger() as stranger:
        await wait_until(lambda: all_find_all(identities, directories))
        before = [table_of(directory) for directory in directories]
        for _ in range(60):
            stranger.identity = Identity.generate()
            await stranger.send(PING, directories[0].port)
        assert await stranger.receive() is not None
        assert [table_of(directory) for directory in directories] == before
        await trio.sleep(ANSWER_SECONDS * 1.5)  # until every question back has ended
        assert [table_of(directory) for directory in directories] == before
        assert not directories[0]._server.protocol._probes


async def test_a_key_cannot_be_borrowed() -> None:
    """A packet that names a member's key and is signed by another gets no answer and moves no entry."""
    async with open_swarm(3) as (identities, directories), open_stranger(identities[1]) as thief:
        await wait_until(lambda: all_find_all(identities, directories))
        await thief.send(PING, directories[0].port, signer=Identity.generate())
        assert await thief.receive(0.3) is None
        assert table_of(directories[0])[id_of(directories[1])] == (LOOPBACK, directories[1].port)


async def test_a_relayed_member_moves_no_entry() -> None:
    """Whoever replays a member's packets, and even relays its answers, does not redirect its traffic."""
    async with open_swarm(3) as (identities, directories), open_stranger(identities[1]) as relay:
        await wait_until(lambda: all_find_all(identities, directories))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.serve, lambda _: PONG)
            await relay.send(PING, directories[0].port, id_of(directories[0]))
            await trio.sleep(0.3)  # until the member has been asked where we knew it
            nursery.cancel_scope.cancel()
        assert table_of(directories[0])[id_of(directories[1])] == (LOOPBACK, directories[1].port)


@pytest.mark.parametrize("fault", ["old", "early", "other run", "other node", "not a ping to anyone"])
async def test_requests_out_of_place_are_not_answered(fault: str) -> None:
    """Stale or early clocks, other runs, other destinations, and lookups addressed to nobody: silence."""
    async with open_swarm(1) as (_, (directory,)), open_stranger() as stranger:
        key, home = bytes(20), id_of(directory)
        if fault == "old":
            await stranger.send(PING, directory.port, home, age_ms=600_000)
        elif fault == "early":
            await stranger.send(PING, directory.port, home, age_ms=-600_000)
        elif fault == "other run":
            await stranger.send(PING, directory.port, home, run_id=b"f" * 32)
        elif fault == "other node":
            await stranger.send(PING, directory.port, node_id_of(RUN_ID, Identity.generate().peer_id, 0))
        else:
            await stranger.send(encode_body(FindNode(key)), directory.port)
        assert await stranger.receive(0.2) is None
        assert isinstance(await ask(stranger, directory, Ping()), Pong)


async def test_invalid_records_are_not_stored() -> None:
    """Forged, expired, older and oversized records are turned away at the door; the good one stays."""
    victim, now_ms = Identity.generate(), wall_clock_ms()
    key = contact_key(RUN_ID, victim.peer_id)

    def record(signer: Identity, sequence: int, lifetime_ms: int) -> bytes:
        return sign_contact(signer, RUN_ID, [("192.0.2.1", 4000)], sequence, now_ms + lifetime_ms)

    good = record(victim, 5, 60_000)
    async with open_swarm(1) as (_, (directory,)), open_stranger() as stranger:
        assert await ask(stranger, directory, Store(key, good)) == Stored(True)
        for bad in (record(stranger.identity, 9, 60_000), record(victim, 9, -1), record(victim, 9, 10**9), b"junk"):
            assert await ask(stranger, directory, Store(key, bad)) == Stored(False)
        assert await ask(stranger, directory, Store(key, record(victim, 4, 60_000))) == Stored(True)
        assert await ask(stranger, directory, Store(key, bytes(1025))) is None
        assert await ask(stranger, directory, FindRecord(key)) == FoundRecord(good, ())
        assert open_contact(RUN_ID, key, good, now_ms) is not None


async def test_a_flood_is_cut_off() -> None:
    """A sender whose share is used up is not answered, and the others do not notice."""
    async with open_swarm(3) as (identities, directories), open_stranger() as flooder:
        await wait_until(lambda: all_find_all(identities, directories))
        limit, sender = directories[0]._server.protocol._limit, customer_of(LOOPBACK, flooder.port)
        limit._senders[sender] = TokenBucket(rate=0.0, burst=3.0, now=monotonic())
        for _ in range(50):
            await flooder.send(PING, directories[0].port, id_of(directories[0]))
        packets = [await flooder.receive(0.3) for _ in range(5)]
        kinds = [header.kind for data in packets if data is not None and (header := read_header(RUN_ID, data))]
        assert kinds.count(Kind.ANSWER) == 3
        await wait_until(lambda: all_find_all(identities, directories))


async def test_many_ids_at_one_address_are_seen_through() -> None:
    """A liar who names sixteen ids, all at its own address, answers for none but its own key's."""
    async with open_swarm(3) as (identities, directories), open_stranger() as liar, trio.open_nursery() as nursery:
        ids = tuple((bytes([number]) * 20, LOOPBACK, liar.port) for number in range(16))

        def answer(request: Request) -> bytes:
            found = FoundRecord(None, ids) if isinstance(request, FindRecord) else FoundNodes(ids)
            return PONG if isinstance(request, Ping) else encode_body(found)

        nursery.start_soon(liar.serve, answer)
        await join(liar, directories)
        await wait_until(lambda: all_find_all(identities, directories))
        real = {id_of(directory) for directory in directories} | {liar.node_id}
        assert all(set(table_of(directory)) <= real for directory in directories)
        nursery.cancel_scope.cancel()


async def test_a_dead_node_delays_one_lookup_only() -> None:
    """After its first silence neighbours may bring it up again and again: it is not asked."""
    async with open_swarm(4) as (identities, directories), open_stranger() as dead:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dead.serve, lambda _: PONG)
            await join(dead, directories)
            nursery.cancel_scope.cancel()
        await directories[1].find(identities[2].peer_id)
        assert dead.node_id not in table_of(directories[1])
        assert dead.node_id in table_of(directories[3])
        started = trio.current_time()
        for _ in range(3):
            assert await directories[1].find(identities[2].peer_id) is not None
        assert trio.current_time() - started < ANSWER_SECONDS


async def test_the_stock_shortcuts_are_closed() -> None:
    """Writing arbitrary keys and pickling the routing table are refused as mistakes of ours."""
    async with open_swarm(1) as (_, (directory,)):
        server = directory._server
        with pytest.raises(LocalProtocolError, match="contact record"):
            await server.set("key", b"value")
        with pytest.raises(LocalProtocolError, match="unpickling"):
            server.save_state("file")
        with pytest.raises(AttributeError):
            server.protocol.any_remote_name  # noqa: B018
