"""What happens beside an entry: another one, a ban; and a restart between the draw of a checker and its charge."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.joining_scenes import COMES_S, MEMBERS, SECOND, STRANGER, Idle, build, find, play, require_sound

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Report
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Promoted, RoundDone
from btard.swarm.frames import Kind

EVERY_ROUND = {"state_interval": 1}
"""Epochs of one round: each admits somebody."""


class Waiting(Conduct):
    """A candidate that says nothing of its gradient while it is ahead of the other one."""

    swarm: SimulatedSwarm

    def _is_ahead(self) -> bool:
        keys = [self.swarm.identities[index].peer_id for index in (STRANGER, SECOND)]
        seals = [event.result.seal for event in self.swarm.outcomes[0].rounds[-1:]]
        worked = {item.peer: item.worked for seal in seals for item in seal.candidates}
        return worked.get(keys[0], 0) > worked.get(keys[1], 0)

    async def accompany(self, hub: Hub) -> None:
        """Stand between the peer and its hub."""
        send = hub.send

        def send_some(peer: PeerId, kind: int, head: bytes) -> None:
            if kind != Kind.SAMPLE or not self._is_ahead():
                send(peer, kind, head)

        hub.send = send_some  # type: ignore[method-assign]
        await trio.sleep_forever()


def test_two_newcomers_enter_in_neighbouring_rounds(tmp_path: Path) -> None:
    """The second is promoted in the first round of the first, whose words it then needs as all others do."""
    conduct = Waiting()
    joins = {STRANGER: COMES_S, SECOND: COMES_S}
    swarm = conduct.swarm = build(tmp_path, joins, {STRANGER: conduct}, **EVERY_ROUND, probation=12, rounds=60)
    outcome = play(swarm)
    first, second = (find(outcome, index, Promoted)[0].round for index in (SECOND, STRANGER))
    assert second == first + 1
    assert not find(outcome, 0, Departed)
    for index, begun in ((SECOND, first), (STRANGER, second)):
        assert [event.round for event in outcome.peers[index].rounds] == list(range(begun, 61))
    require_sound(swarm, outcome)


class IdleOnce(Conduct):
    """A candidate that lies in one round: so that it is charged in the first round of another newcomer."""

    swarm: SimulatedSwarm

    def sample(self, round_number: int, compute: Any) -> Report:
        """Say anything where the other candidate will be promoted two rounds later."""
        other = self.swarm.identities[STRANGER].peer_id
        seals = [event.result.seal for event in self.swarm.outcomes[0].rounds if event.round == round_number - 1]
        worked = [item.worked for seal in seals for item in seal.candidates if item.peer == other]
        return Report((0.0,) * 10, 1.0) if worked == [self.swarm.config.probation - 3] else compute()


def test_candidate_banned_in_the_first_round_of_a_newcomer_is_in_order(tmp_path: Path) -> None:
    """The newcomer's ledger has no proof of what was settled before it was taken in, and its audit asks for none."""
    attack = IdleOnce()
    swarm = attack.swarm = build(
        tmp_path, {STRANGER: COMES_S, SECOND: COMES_S + 1}, {SECOND: attack}, **EVERY_ROUND, probation=8
    )
    outcome = play(swarm)
    entry = find(outcome, STRANGER, Promoted)[0].round
    assert [(event.peer, event.round) for event in find(outcome, 0, Departed)] == [
        (swarm.identities[SECOND].peer_id, entry)
    ]
    require_sound(swarm, outcome)


@pytest.mark.parametrize("conduct", [Conduct, Idle])
def test_checker_that_restarts_between_its_draw_and_its_charge_is_not_blamed(
    conduct: type[Conduct], tmp_path: Path
) -> None:
    """It does not remember the x of that round and says nothing; an idle candidate is found by the next checker."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: conduct()} if conduct is Idle else None)
    killed: list[int] = []

    def watch(index: int, event: Any) -> None:
        if not killed and isinstance(event, RoundDone):
            checkers = [check.checker for check in event.result.checks]
            if swarm.identities[index].peer_id in checkers:
                killed.append(index)
                swarm.crash(index, 0.3)

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.peers[killed[0]].restarts == 1
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert outcome.departures(DepartureKind.BAN).keys() == ({STRANGER} if conduct is Idle else set())
    assert len(outcome.peers[0].rounds[-1].roster) == MEMBERS + (conduct is Conduct)
    require_sound(swarm, outcome)
