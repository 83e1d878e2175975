"""Whoever crashes in the moment in which members go that said goodbye comes back to those who stay."""

from collections.abc import Mapping
from pathlib import Path

from tests.swarm.joining_scenes import play, require_sound

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.events import Departed, RoundDone

SIZE, ROUNDS, LAST = 5, 6, 3
"""Goodbyes are said in round 3, and signed for in round 4."""


class LateSwarm:
    """A swarm in which one member hears nothing soon that is said in round 4, and crashes when leavers are gone."""

    def __init__(self, directory: Path, index: int, leavers: tuple[int, ...], restart_s: float) -> None:
        self._index, self._restart_s, self._is_late = index, restart_s, False
        self.swarm = SimulatedSwarm(
            {"genesis_size": SIZE, "tau": 5.0, "delta": 50.0, "rounds": ROUNDS},
            LinearTask,
            directory,
            delivery=self._deliver,
            leave_after=dict.fromkeys(leavers, LAST - 1),
            watch=self._watch,
        )

    def _deliver(self, _sender: PeerId, receiver: PeerId, _message: Message) -> float:
        is_late = self._is_late and receiver == self.swarm.identities[self._index].peer_id
        return 0.9 if is_late else 0.05

    def _watch(self, index: int, event: object) -> None:
        if isinstance(event, RoundDone) and event.round == LAST:
            self._is_late = True
        is_gone = isinstance(event, Departed) and event.kind is DepartureKind.GOODBYE
        if is_gone and index != self._index and not self.swarm.outcomes[self._index].crashes:
            self._is_late = False
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
