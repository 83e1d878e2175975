"""A member that nobody can dial takes part like everybody else, for it dials all the others."""

from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.swarm.events import Event, Halted, RoundDone

Clock = trio.testing.MockClock
ROUNDS = 8
CONFIG = {"genesis_size": 5, "rounds": ROUNDS}


class ClosedDoor:
    """Five peers, one of whom, not the founder, cannot be dialled; after some rounds it loses all its links."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, *, is_last: bool, cut_after: int) -> None:
        self.hostile = HostileSwarm(monkeypatch, directory, CONFIG, watch=self.watch)
        peers, founder = self.hostile.peers, self.hostile.config.founder_id
        order = sorted(peer for peer in peers if peer != founder)
        self.closed, self.cut_after = order[-1] if is_last else order[0], cut_after
        self.network = self.hostile.swarm.network
        self.network.closed.add(self.closed)
        self.network.delivery = lambda sender, receiver, message: 0.1
        self.cuts = 0

    def watch(self, index: int, event: Event) -> None:
        """Cut the closed peer off after its rounds are over."""
        is_closed = self.hostile.peers[index] == self.closed
        if is_closed and isinstance(event, RoundDone) and event.round == self.cut_after:
            for peer in set(self.hostile.peers) - {self.closed}:
                self.cuts += self.hostile.hubs[peer].is_connected(self.closed)
                self.network.break_links(peer, self.closed)


@pytest.mark.parametrize("is_last", [False, True], ids=["lowest id", "highest id"])
async def test_one_of_five_cannot_be_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock, is_last: bool
) -> None:
    """All rounds run with all five, also after every link of it broke in the middle: it makes them anew."""
    door = ClosedDoor(monkeypatch, tmp_path, is_last=is_last, cut_after=4)
    outcome = await door.hostile.run()
    assert door.cuts == 4
    for peer in outcome.peers:
        assert (peer.error, peer.departures) == (None, [])
        assert [event.round for event in peer.rounds] == list(range(1, ROUNDS + 1))
        assert not [event for event in peer.events if isinstance(event, Halted)]
    assert len(outcome.state_roots) == 1


async def test_two_that_cannot_be_dialled_have_no_link_and_cost_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Nobody leaves: the others hand on what the two have to say to each other, and each round waits Δ's for it."""
    door = ClosedDoor(monkeypatch, tmp_path, is_last=False, cut_after=0)
    other = next(p for p in door.hostile.peers if p not in {door.closed, door.hostile.config.founder_id})
    door.network.closed.add(other)
    linked: list[bool] = []
    door.hostile.swarm._watch = lambda index, event: linked.append(door.hostile.hubs[other].is_connected(door.closed))
    outcome = await door.hostile.run()
    assert linked
    assert not any(linked)
    delay_s = door.hostile.config.delay_s
    for peer in outcome.peers:
        assert (peer.error, peer.departures) == (None, [])
        assert [event.round for event in peer.rounds] == list(range(1, ROUNDS + 1))
        assert all(3 * delay_s < event.wall_s < 6 * delay_s for event in peer.rounds[1:])
    assert len(outcome.state_roots) == 1
