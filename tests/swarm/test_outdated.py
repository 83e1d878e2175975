"""A ledger that is older than what was sent signs nothing, and who was put out meanwhile is told so."""

import shutil
from pathlib import Path

import pytest
import trio

from btard.errors import Banned, ConfigError, Removed
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.events import Event, Resumed, RoundDone
from btard.swarm.ledger import Ledger

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 5, "genesis_size": 4, "delay_s": 1.0}


class Story:
    """Does something once, when a peer has finished a round."""

    def __init__(self, index: int, number: int) -> None:
        self._index, self._number, self.is_told = index, number, False
        self.act = lambda: None

    def watch(self, index: int, event: Event) -> None:
        """Look at what peers observe."""
        if isinstance(event, RoundDone) and (index, event.round) == (self._index, self._number) and not self.is_told:
            self.is_told = True
            self.act()


@pytest.mark.parametrize("min_roster", [2, 4])
async def test_an_old_copy_of_a_ledger_signs_nothing(
    min_roster: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A peer that comes back with yesterday's data directory is shown its own messages, and stops.

    If the others can go on without it, it learns that they did; if they wait for it, it says what is wrong.
    """
    copy, old = tmp_path / "copy", Story(2, 1)
    dead = Story(2, 3)
    swarm = SimulatedSwarm(
        {**SETTINGS, "min_roster": min_roster},
        LinearTask,
        tmp_path,
        watch=lambda index, event: (old.watch(index, event), dead.watch(index, event)),
        on_end=lambda ended: swarm.stop() if min_roster == 4 else None,
    )

    def restore_copy() -> None:
        swarm.crash(2, 1.0)
        shutil.rmtree(swarm.data_dir(2))
        shutil.copytree(copy, swarm.data_dir(2))

    old.act, dead.act = lambda: shutil.copytree(swarm.data_dir(2), copy), restore_copy
    outcome = await swarm.run()
    victim = outcome.peers[2]
    words = {
        2: "went on without this peer",
        4: "the ledger is an older copy, and nothing is signed with it; start with",
    }
    assert isinstance(victim.error, Removed if min_roster == 2 else ConfigError)
    assert words[min_roster] in str(victim.error)
    resumed = next(number for number, event in enumerate(victim.events) if isinstance(event, Resumed))
    assert not any(isinstance(event, RoundDone) for event in victim.events[resumed:])
    assert outcome.departures(DepartureKind.BAN) == {}


async def test_a_founder_without_its_ledger_founds_nothing_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The members of the run that goes on link to it and know its seal 0: it stops, signs nothing, and bans nobody."""
    dead = Story(0, 2)
    swarm = SimulatedSwarm({**SETTINGS, "rounds": 8}, LinearTask, tmp_path, watch=dead.watch)

    def lose_everything() -> None:
        swarm.crash(0, 1.0)
        shutil.rmtree(swarm.data_dir(0))

    dead.act = lose_everything
    outcome = await swarm.run()
    assert isinstance(outcome.peers[0].error, ConfigError)
    assert "this run was founded before" in str(outcome.peers[0].error)
    with Ledger.create(swarm.data_dir(0), swarm.config, swarm.identities[0].peer_id) as ledger:
        assert ledger.newest_seal() is None
    assert [peer.error for peer in outcome.peers[1:]] == [None] * 3
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {0}
    assert outcome.departures(DepartureKind.BAN) == {}


async def test_a_peer_that_was_removed_meanwhile_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever is away for longer than the deadlines comes back to the news, each time it is started."""
    dead = Story(2, 2)
    swarm = SimulatedSwarm({**SETTINGS, "rounds": 25}, LinearTask, tmp_path, watch=dead.watch)
    dead.act = lambda: swarm.crash(2, 40.0)
    swarm.network.delivery = lambda sender, receiver, message: 0.5
    outcome = await swarm.run()
    assert isinstance(outcome.peers[2].error, Removed)
    assert "went on without this peer" in str(outcome.peers[2].error)
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {2}
    assert outcome.departures(DepartureKind.BAN) == {}
    assert [peer.error for peer in outcome.peers if peer.index != 2] == [None] * 3


async def test_an_ending_is_final(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A peer that is out learns so at once when it is started again, and one that had finished has its state."""
    swarm = SimulatedSwarm({**SETTINGS, "rounds": 2}, LinearTask, tmp_path)
    outcome = await swarm.run()
    again = SimulatedSwarm({**SETTINGS, "rounds": 2}, LinearTask, tmp_path)
    for index, kind in ((1, Banned), (2, Removed)):
        with Ledger.create(swarm.data_dir(index), swarm.config, swarm.identities[index].peer_id) as ledger:
            ledger._database.execute("DELETE FROM endings")
            ledger.record_ending(kind.__name__, "as somebody said")
    after = await again.run()
    assert [type(peer.error) for peer in after.peers] == [type(None), Banned, Removed, type(None)]
    assert after.state_roots == outcome.state_roots
