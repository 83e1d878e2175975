"""What strangers and Byzantine members can make a peer hold is bounded, and crowds out nobody else."""

import mmap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from tests.rules.build import make_config

from btard.errors import RemoteProtocolError
from btard.identity import Identity, PeerId
from btard.net import MAX_BULK, Hub, MemoryNetwork, Terms
from btard.net.link import check_message
from btard.rules.config import MAX_ELEMENTS, MAX_MEMBERS
from btard.rules.messages import Ballot, Check, Commit, Phase, Report, SignedMessage, Stage
from btard.rules.recovery import LARGEST
from btard.rules.roster import Roster
from btard.rules.seal import SealSignature
from btard.swarm.board import MAX_BYTES, Board
from btard.swarm.broadcast import FIRST, Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.genesis import Founder, SignedSeal, make_hello
from btard.swarm.ledger import Ledger
from btard.swarm.place import Expectation
from btard.wire import encode, sign_message, sign_seal

STATE = b"s" * 32
MEMBERS = sorted((Identity(bytes([number]) * 32) for number in range(1, 6)), key=lambda item: item.peer_id)
FOUNDER, Z, *_ = MEMBERS
STRANGER = Identity(b"x" * 32)
CONFIG = make_config(founder=FOUNDER.peer_id.hex(), genesis_size=len(MEMBERS))
ROSTER = Roster(tuple(item.peer_id for item in MEMBERS))
LARGE = Check(tuple(Report((0.5,) * 54, 1.0) for _ in range(256)), b"n" * 32)
COMMIT = Commit(b"r" * 32, overflow=False, verdicts=(), state=STATE, seal=b"g" * 64, goodbye=False)

Opener = Callable[..., Broadcast]


@pytest.fixture
def open_broadcast(tmp_path: Path) -> Opener:
    """Return a function that makes the broadcast of a member on the network given, or on its own."""
    with ExitStack() as ledgers:

        def open_one(me: Identity = FOUNDER, hub: Hub | None = None) -> Broadcast:
            ledger = ledgers.enter_context(Ledger.create(tmp_path / me.peer_id.hex(), CONFIG, me.peer_id))
            return Broadcast(CONFIG, me, hub or make_hub(me, MemoryNetwork()), ledger, Conduct())

        for member in MEMBERS:
            (tmp_path / member.peer_id.hex()).mkdir()
        yield open_one


def make_hub(me: Identity, network: MemoryNetwork) -> Hub:
    """Return a hub on a network."""
    transport = network.transport(me, Terms(CONFIG.run_id, CONFIG.field_digests))
    hub = Hub(transport, me.peer_id)
    hub.address = transport.address  # type: ignore[attr-defined]
    return hub


def seal_genesis() -> SignedSeal:
    """Return seal 0 of the members, as the founder signs it."""
    founder = Founder(FOUNDER, CONFIG, make_hub(FOUNDER, MemoryNetwork()), STATE)
    for member in MEMBERS:
        founder.admit(make_hello(member, CONFIG, STATE, 5))
    assert founder._sealed is not None
    return founder._sealed


def sign(who: Identity, stage: Stage, previous: bytes = b"") -> SignedMessage:
    """Return a message signed by a member."""
    payload = COMMIT if stage.phase is Phase.COMMIT else LARGE
    return sign_message(who, CONFIG.run_id, ROSTER.digest, stage, previous, payload)


def flood(broadcast: Broadcast) -> None:
    """Fill every slot that Z has in rounds 4 to 6, whatever attempt and serial."""
    for round_number in (4, 5, 6):
        for attempt in range(9):
            for serial in (0, 1):
                broadcast.take(sign(Z, Stage(round_number, attempt, Phase.CHECK, serial)))


def stand_at(broadcast: Broadcast, stage: Stage) -> None:
    """Let a broadcast be at a stage."""
    place = broadcast.place
    place.round, place.attempt, place.roster = stage.round, stage.attempt, ROSTER
    place.current = Expectation(stage, ROSTER, ROSTER.digest, b"", lambda message: True)


def test_a_flood_of_signed_messages_is_bounded(open_broadcast: Opener) -> None:
    """Whatever a member signs, it fills its room and one message that is due, and the others lose nothing."""
    broadcast = open_broadcast()
    stand_at(broadcast, Stage(5, 8, Phase.CHECK))
    flood(broadcast)
    assert MAX_BYTES / 2 < broadcast.board.count_bytes(Z.peer_id) <= MAX_BYTES + LARGEST
    ahead = Stage(6, 8, Phase.CHECK)
    broadcast.take(sign(MEMBERS[2], ahead))
    assert MEMBERS[2].peer_id in broadcast.board.of(ahead)
    assert Z.peer_id not in broadcast.board.of(Stage(6, 8, Phase.CHECK))


@pytest.mark.parametrize("stage", [Stage(5, 9, Phase.CHECK), Stage(5, 9, Phase.COMMIT), Stage(0, 9, Phase.HALT)])
def test_what_is_due_is_kept_whatever_its_sender_said_before(open_broadcast: Opener, stage: Stage) -> None:
    """A member cannot make one peer deaf to it, and so a party to a quarrel, by filling its own room there."""
    broadcast = open_broadcast()
    stand_at(broadcast, Stage(5, 8, Phase.CHECK))
    flood(broadcast)
    stand_at(broadcast, Stage(5, 9, Phase.CHECK))
    message = sign(Z, stage)
    broadcast.take(message)
    assert broadcast.board.of(stage)[Z.peer_id] == message


def test_evidence_is_kept_whatever_its_sender_said_before(open_broadcast: Opener) -> None:
    """The second version of a message that is held convicts, however full the room of its sender is."""
    broadcast = open_broadcast()
    stand_at(broadcast, Stage(5, 8, Phase.CHECK))
    flood(broadcast)
    held = Stage(4, 0, Phase.CHECK)
    assert Z.peer_id in broadcast.board.of(held)
    broadcast.take(sign(Z, held, b"p" * 32))
    assert [item.culprit for item in broadcast.board.equivocations()] == [Z.peer_id]


def test_second_versions_are_bounded_too(open_broadcast: Opener) -> None:
    """A member that fills its room with short messages cannot then hand in a long second version of each."""
    broadcast = open_broadcast()
    stand_at(broadcast, Stage(5, 0, Phase.CHECK))
    slots = [Stage(0, 1, Phase.BALLOT, serial) for serial in range(2200)]
    for stage in slots:
        broadcast.take(sign_message(Z, CONFIG.run_id, ROSTER.digest, stage, b"", Ballot((), b"v" * 32)))
    long = Ballot(tuple(bytes([number]) * 32 for number in range(256)), b"w" * 32)
    for stage in slots[:100]:
        broadcast.take(sign_message(Z, CONFIG.run_id, ROSTER.digest, stage, b"", long))
    assert broadcast.board.count_bytes(Z.peer_id) <= MAX_BYTES + LARGEST
    assert [item.culprit for item in broadcast.board.equivocations()] == [Z.peer_id]


def test_what_is_forgotten_gives_room(open_broadcast: Opener) -> None:
    """In a later round a sender may speak again."""
    board = Board()
    for attempt in range(60):
        board.post(sign(Z, Stage(4, attempt, Phase.CHECK)), is_due=lambda _: False)
    board.forget(5, 0)
    assert board.count_bytes(Z.peer_id) == 0
    later = Stage(5, 60, Phase.CHECK)
    board.post(sign(Z, later), is_due=lambda _: False)
    assert Z.peer_id in board.of(later)


def test_before_genesis_only_members_are_heard(open_broadcast: Opener) -> None:
    """Strangers use up no allowance, for they have none; who shows the founder's seal is a member."""
    broadcast, member = open_broadcast(), MEMBERS[2]
    for identity in (STRANGER, member):
        broadcast._receive(identity.peer_id, sign(identity, FIRST).envelope)
    assert not broadcast.board.of(FIRST)
    assert not broadcast.is_member(member.peer_id)
    broadcast._receive_genesis(STRANGER.peer_id, encode(seal_genesis()))
    for identity in (STRANGER, member):
        broadcast._receive(identity.peer_id, sign(identity, FIRST).envelope)
        broadcast._receive(identity.peer_id, sign(identity, Stage(1, 0, Phase.CHECK)).envelope)
    assert set(broadcast.board.of(FIRST)) == {member.peer_id}
    assert not broadcast.board.of(Stage(1, 0, Phase.CHECK))
    assert broadcast.is_member(member.peer_id)
    assert not broadcast.is_member(STRANGER.peer_id)


def test_nobody_but_the_founder_makes_members(open_broadcast: Opener) -> None:
    """A seal 0 that another key signed ends the link it came by."""
    broadcast, seal = open_broadcast(), seal_genesis().seal
    forged = SignedSeal(seal, sign_seal(STRANGER, seal))
    with pytest.raises(RemoteProtocolError, match="not signed by the founder"):
        broadcast._receive_genesis(STRANGER.peer_id, encode(forged))
    assert not broadcast.is_member(FOUNDER.peer_id)


async def test_members_show_the_seal_before_they_speak(
    open_broadcast: Opener, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who has not heard of the genesis yet hears a member's first message all the same."""
    network, sealed = MemoryNetwork(), seal_genesis()
    hubs = [make_hub(identity, network) for identity in (FOUNDER, Z)]
    early, late = (open_broadcast(identity, hub) for identity, hub in zip((FOUNDER, Z), hubs, strict=True))
    for hub in hubs:
        await nursery.start(hub.run)
    await hubs[0].connect(Z.peer_id, hubs[1].address)
    early._ledger.record_seal(sealed.seal)
    early._ledger.record_signatures(0, [SealSignature(FOUNDER.peer_id, sealed.signature)])
    early.place.roster = ROSTER
    early.say(FIRST, ROSTER.digest, b"", COMMIT)
    await trio.sleep(1)
    assert set(late.board.of(FIRST)) == {FOUNDER.peer_id}


async def test_a_place_at_genesis_costs_a_link(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Nobody takes a place for another key, and who goes away before the genesis gives its place back."""
    network = MemoryNetwork()
    hubs = {identity: make_hub(identity, network) for identity in (*MEMBERS, STRANGER)}
    founder = Founder(FOUNDER, CONFIG, hubs[FOUNDER], STATE)
    founder.admit(make_hello(FOUNDER, CONFIG, STATE, 5))

    async def say_hello(through: Identity, who: Identity) -> None:
        await hubs[through].connect(FOUNDER.peer_id, hubs[FOUNDER].address)
        hello = make_hello(who, CONFIG, STATE, 5)
        nursery.start_soon(ask, hubs[through], hello)
        await trio.sleep(1)

    async def ask(hub: Hub, hello: bytes) -> None:
        with pytest.raises(Exception, match=r"did not answer|link to"):
            await hub.request(FOUNDER.peer_id, Kind.HELLO, hello, timeout_s=10)

    for hub in hubs.values():
        await nursery.start(hub.run)
    await say_hello(STRANGER, Z)
    assert founder.warm == 1
    await say_hello(STRANGER, STRANGER)
    assert founder.warm == 2
    network.disconnect(STRANGER.peer_id)
    await trio.sleep(1)
    await say_hello(Z, Z)
    assert set(founder._promised) == {FOUNDER.peer_id, Z.peer_id}


def test_the_whole_vector_of_the_largest_run_fits_in_one_payload() -> None:
    """A part beyond a gibibyte can be sent: no roster that a run may have leads to a payload that is refused."""
    assert 4 * MAX_ELEMENTS == MAX_BULK
    with mmap.mmap(-1, (1 << 30) + 4096) as untouched, memoryview(untouched) as part:
        check_message(Kind.PART, b"", part)


async def test_pulling_a_stage_ends_whatever_the_source_answers(
    open_broadcast: Opener, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A source that always has another page is asked for no more pages than there are members."""
    network, asked = MemoryNetwork(), list[PeerId]()
    hubs = [make_hub(identity, network) for identity in (FOUNDER, Z)]
    broadcast = open_broadcast(FOUNDER, hubs[0])
    stage = Stage(5, 0, Phase.CHECK)
    stand_at(broadcast, stage)

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        asked.append(peer)
        return encode([[sign(MEMBERS[len(asked) % 5], stage).envelope], False]), None

    hubs[1].serve[Kind.PULL_STAGE] = serve
    for hub in hubs:
        await nursery.start(hub.run)
    await hubs[0].connect(Z.peer_id, hubs[1].address)
    await broadcast.pull(stage, (Z.peer_id,), 60)
    assert len(asked) == len(MEMBERS) <= MAX_MEMBERS
    assert set(broadcast.board.of(stage)) == set(ROSTER.members)
