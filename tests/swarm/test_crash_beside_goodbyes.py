"""Whoever crashes in the moment in which members go that said goodbye comes back to those who stay."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.swarm.joining_scenes import play, require_sound

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.events import Departed
from btard.swarm.frames import Kind
from btard.swarm.services import Deadlines
from btard.wire import open_message

SIZE, ROUNDS, LAST = 5, 6, 3
"""Goodbyes are said in round 3, and settled in round 4."""
SOON_S, LATE_S = 0.05, 0.9
GRADIENT_MS = 100
"""What the genesis of a simulated swarm says of a gradient."""


class LateSwarm:
    """A swarm in which one member does not hear soon that a goodbye is settled, and crashes when the others have."""

    def __init__(self, directory: Path, index: int, leavers: tuple[int, ...], restart_s: float) -> None:
        self._index, self._restart_s = index, restart_s
        self.swarm = SimulatedSwarm(
            {"genesis_size": SIZE, "tau": 5.0, "delta": 50.0, "rounds": ROUNDS},
            LinearTask,
            directory,
            delivery=self._deliver,
            leave_after=dict.fromkeys(leavers, LAST - 1),
            watch=self._watch,
        )

    def _deliver(self, _sender: PeerId, receiver: PeerId, message: Message) -> float:
        is_late = receiver == self.swarm.identities[self._index].peer_id and self._settles(message)
        return LATE_S if is_late and not self.swarm.outcomes[self._index].crashes else SOON_S

    def _settles(self, message: Message) -> bool:
        if message.payload is not None or message.kind not in (Kind.MESSAGE, Kind.CERTIFICATE):
            return False
        if message.kind == Kind.CERTIFICATE:
            return True
        return open_message(self.swarm.config.run_id, bytes(message.head)).slot.stage.phase is Phase.BALLOT

    def _watch(self, index: int, event: object) -> None:
        is_gone = isinstance(event, Departed) and event.kind is DepartureKind.GOODBYE
        if is_gone and index != self._index and not self.swarm.outcomes[self._index].crashes:
            self.swarm.crash(self._index, self._restart_s)

    def run(self, rounds: Mapping[int, int]) -> Outcome:
        """Run to the end: without errors, and so many rounds of each."""
        outcome = play(self.swarm)
        assert [peer.error for peer in outcome.peers] == [None] * SIZE
        assert outcome.peers[self._index].restarts == 1
        assert {peer.index: len({done.round for done in peer.rounds}) for peer in outcome.peers} == rounds
        assert not outcome.departures(DepartureKind.REMOVAL)
        return outcome


def test_whoever_stays_is_company_enough(tmp_path: Path) -> None:
    """Three of five leave, and of the two who stay one crashes: it waits for the other, not for those who are gone."""
    leavers = (2, 3, 4)
    late = LateSwarm(tmp_path, 1, leavers, restart_s=6.0)
    outcome = late.run(dict.fromkeys((0, 1), ROUNDS) | dict.fromkeys(leavers, LAST))
    stayers = Outcome(outcome.peers[:2], frozenset(), outcome.virtual_s)
    require_sound(late.swarm, stayers)


@pytest.mark.parametrize("restart_s", [0.3, 2.0])
def test_whoever_said_goodbye_has_left(restart_s: float, tmp_path: Path) -> None:
    """It had said all that was needed of it, and missed that it is settled: the seal without it is what it wished."""
    late = LateSwarm(tmp_path, 4, (4,), restart_s)
    outcome = late.run(dict.fromkeys(range(4), ROUNDS) | {4: LAST})
    assert outcome.departures(DepartureKind.GOODBYE).keys() == {4}
    require_sound(late.swarm, Outcome(outcome.peers[:4], frozenset(), outcome.virtual_s))


@pytest.mark.parametrize("later_s", [0.25, 1.0, 1.75, 2.5])
def test_a_late_word_of_another_makes_nobody_removed_that_has_left(later_s: float, tmp_path: Path) -> None:
    """All wait for somebody's AGREE beyond the deadline; who leaves by it asks no more whether it is a member."""

    def deliver(sender: PeerId, _receiver: PeerId, message: Message) -> float:
        is_late = sender == swarm.identities[0].peer_id and message.kind == Kind.MESSAGE
        if is_late and open_message(swarm.config.run_id, bytes(message.head)).slot.stage.phase is Phase.AGREE:
            return Deadlines.of(swarm.config, GRADIENT_MS).check + later_s
        return SOON_S

    swarm = SimulatedSwarm(
        {"genesis_size": SIZE, "tau": 5.0, "delta": 50.0, "rounds": ROUNDS},
        LinearTask,
        tmp_path,
        delivery=deliver,
        leave_after={4: LAST - 1},
    )
    outcome = play(swarm)
    assert [peer.error for peer in outcome.peers] == [None] * SIZE
    assert outcome.departures(DepartureKind.GOODBYE).keys() == {4}
