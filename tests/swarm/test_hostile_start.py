"""What a member or a stranger sends out of turn must not end an honest peer: garbage, odd sizes, messages too early."""

from pathlib import Path

import pytest
import torch
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity
from btard.net import Hub, Terms
from btard.rules.evidence import DepartureKind
from btard.rules.merkle import MerkleTree, compute_leaves
from btard.rules.messages import Halt, Hello, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone, RunStarted
from btard.swarm.frames import Kind, PartHead, SliceHead
from btard.swarm.state import as_bytes
from btard.wire import encode

SIZE = {"genesis_size": 4}
Clock = trio.testing.MockClock


async def test_a_halt_before_the_first_stage_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A HALT that arrives before a member has entered its first stage waits until it has."""

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RunStarted) and index == 1:
            roster = Roster(event.roster).digest
            halt = Halt(Position(1, 0, int(Phase.COMMIT), 0), (), ())
            hostile.tell(1, hostile.sign(1, roster, Stage(0, 0, Phase.HALT, 0), halt))

    hostile = HostileSwarm(monkeypatch, tmp_path, SIZE, conducts={1: Conduct()}, watch=watch)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert [len(peer.rounds) for peer in outcome.honest] == [3] * 3


async def test_an_empty_part_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """A bulk message of no bytes is refused."""

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone) and index == 1 and event.round == 1:
            for peer in hostile.peers[2:]:
                for kind in (Kind.PART, Kind.SLICE, Kind.PLAIN_PART):
                    head = (
                        encode(PartHead(2, 0, 0))
                        if kind is not Kind.SLICE
                        else encode(SliceHead(2, b"r" * 32, 0, 0, ()))
                    )
                    trio.lowlevel.spawn_system_task(
                        hostile.hubs[hostile.peers[1]].send_bulk, peer, kind, head, memoryview(b"")
                    )

    hostile = HostileSwarm(monkeypatch, tmp_path, SIZE, watch=watch)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * 4


async def test_two_hellos_are_no_crime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock) -> None:
    """Whoever started twice before genesis has signed two HELLOs; a founder that shows both convinces nobody."""

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone) and index == 0 and event.round == 1:
            stage = Stage(0, 0, Phase.HELLO)
            first, second = (
                hostile.sign(2, Roster(()).digest, stage, Hello(number, b"s" * 32)) for number in (100, 101)
            )
            proof = encode(hostile.prove(first, second))
            halt = Halt(Position(2, 0, int(Phase.COMMIT), 0), (), (proof,))
            hostile.tell(0, hostile.sign(0, Roster(event.roster).digest, Stage(0, 0, Phase.HALT, 0), halt))
            for envelope in (first, second):
                hostile.tell(0, envelope)

    hostile = HostileSwarm(monkeypatch, tmp_path, SIZE, conducts={0: Conduct()}, watch=watch)
    outcome = await hostile.run()
    assert not outcome.departures(DepartureKind.BAN)
    assert [peer.error for peer in outcome.honest] == [None] * 3


async def test_strangers_fill_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock) -> None:
    """Slices and parts of whoever is no member are refused, however well they prove themselves."""
    kept = []

    async def intrude(number: int) -> None:
        identity = Identity.generate()
        terms = Terms(hostile.config.run_id, hostile.config.field_digests)
        hub = Hub(hostile.swarm.network.transport(identity, terms), identity.peer_id)
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            victim = hostile.hubs[hostile.peers[2]]
            await hub.connect(victim.me, victim._transport.address)
            values = torch.ones(8)
            leaves = compute_leaves(as_bytes(values), 0, 32)
            tree = MerkleTree.build([*leaves, *[bytes(32)] * 24], 200)
            head = SliceHead(2, tree.root, 0, 1, tree.prove(range(1)))
            await hub.send_bulk(victim.me, Kind.SLICE, encode(head), as_bytes(values))
            await hub.send_bulk(victim.me, Kind.PART, encode(PartHead(2, 0, 0)), as_bytes(values))
            await trio.sleep(0.01)
            slices = victim.bulk[Kind.SLICE]
            kept.append([key for key in slices._pieces if key[1] == tree.root])
            kept.append([key for key in victim.bulk[Kind.PART]._held if key[3] == identity.peer_id])
            nursery.cancel_scope.cancel()

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone) and index == 2 and event.round == 1:
            for number in range(3):
                trio.lowlevel.spawn_system_task(intrude, number)

    hostile = HostileSwarm(monkeypatch, tmp_path, SIZE, watch=watch)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * 4
    assert kept == [[]] * 6
