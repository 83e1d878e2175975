"""The fuzzer's member in virtual time: where Delta is kept, whatever it throws harms nobody but itself."""

import random
from pathlib import Path

import pytest
import trio
from tests.fuzz.generate import Generator
from tests.fuzz.member import listen_to
from tests.fuzz.nonsense import Nonsense
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import PeerId
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Event, RoundDone

ATTACKER, ROUNDS = 1, 6


@pytest.mark.parametrize("latency_s", [0.02, 0.9])
@pytest.mark.parametrize("size", [4, 5])
async def test_no_honest_pair_is_ever_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, size: int, latency_s: float
) -> None:
    """A member that throws malformed messages at everyone is marked, removed or banned; no honest one is."""
    chance, marked, thrown = random.Random(size), set[frozenset[PeerId]](), 0

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone):
            marked.update(event.result.marks.pairs)
            nonsense.round, nonsense.attempt = event.round, event.result.attempt

    async def throw() -> None:
        nonlocal thrown
        while nonsense.round < 1:
            await trio.sleep(0.05)
        hub = swarm.hubs[attacker]
        listen_to(hub, generator)
        while True:
            for session in [hub._sessions[peer] for peer in swarm.peers if hub.is_connected(peer)]:
                thrown += 1
                for kind, head in [nonsense.make_bearable() for _ in range(8)]:
                    session.send(kind, head)
                nursery.start_soon(session.send_bulk, *nonsense.make_bulk())
                if chance.random() < 0.2:
                    session.send(*nonsense.make_lethal())
            await trio.sleep(0.2)

    config = {"genesis_size": size, "rounds": ROUNDS}
    swarm = HostileSwarm(monkeypatch, tmp_path, config, conducts={ATTACKER: Conduct()}, watch=watch)
    swarm.swarm.network.delivery = lambda sender, receiver, message: chance.random() * latency_s
    attacker, generator = swarm.peers[ATTACKER], Generator(size)
    roster = Roster.of(swarm.peers).digest
    nonsense = Nonsense(generator, swarm.identities[ATTACKER], swarm.config.run_id, roster)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(throw)
        outcome = await swarm.run()
        nursery.cancel_scope.cancel()
    departed = {event.peer for peer in outcome.honest for event in peer.events if isinstance(event, Departed)}
    assert departed <= {attacker}
    assert all(attacker in pair for pair in marked)
    assert [peer.error for peer in outcome.honest] == [None] * (size - 1)
    assert thrown > 0
