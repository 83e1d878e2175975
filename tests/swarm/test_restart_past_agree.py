"""What settled an attempt is kept: whoever was away then is told by members that are past it, or were started again."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.attacks.equivocation import alter
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.sim import Outcome
from btard.sim.power import PowerLoss
from btard.swarm.adopting import Adopting
from btard.swarm.audit import audit_ledger
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct

Clock = trio.testing.MockClock
LEAVER, CHEAT, VICTIM = 1, 2, 3
NEXT = Stage(3, 1, Phase.AGGREGATE)
"""What is said first in the attempt that begins when the leaver is gone."""
PAUSE_S = 20.0
"""For so long all are away; who leaves does not wait."""
AWAY_S = 3.5
"""For so long one of them is away: the cheat is banned by then, and its data is waited for still."""


class DarkSwarm:
    """A swarm that a member leaves after round 2, and some whose machines lose power right after that."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        directory: Path,
        size: int,
        cheats: tuple[int, ...] = (),
        leavers: tuple[int, ...] = (LEAVER,),
    ) -> None:
        config = {"genesis_size": size, "validators": 0, "rounds": 4, "min_roster": 2}
        conducts = {index: Conduct() for index in cheats}
        leave_after = dict.fromkeys(leavers, 1)
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, leave_after=leave_after)
        self.directory, self.monkeypatch, self.dark, self.leavers = directory, monkeypatch, set[int](), leavers
        self.hostile.swarm.before_restart = self.dark.discard

    def meet(self, before: Callable[[int, Stage], None], after: Callable[[int, SignedMessage], None]) -> None:
        """Call these for all that anybody says; whoever has lost power signs nothing any more."""
        say = Broadcast.say

        def say_or_die(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
            index = self.hostile.peers.index(broadcast.me)
            before(index, stage)
            if index in self.dark:
                raise PowerLoss
            message = say(broadcast, stage, *args)
            after(index, message)
            if index in self.dark:
                raise PowerLoss
            return message

        self.monkeypatch.setattr(Broadcast, "say", say_or_die)

    def cut(self, indices: list[int], restart_s: float) -> None:
        """Let members lose their power."""
        self.dark.update(indices)
        for index in indices:
            self.hostile.swarm.crash(index, restart_s)

    async def run(self) -> Outcome:
        """Run to the end; nobody honest but the leavers may be gone."""
        outcome = await self.hostile.run()
        assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
        assert outcome.departures(DepartureKind.REMOVAL) == {}
        assert set(outcome.departures(DepartureKind.GOODBYE)) == {*self.leavers}
        for peer in outcome.honest:
            if peer.index not in self.leavers:
                assert {done.round for done in peer.rounds} == {1, 2, 3, 4}
                assert peer.state.roster == outcome.peers[0].state.roster
            assert audit_ledger(self.directory / f"peer-{peer.index}").problems == ()
        return outcome


@pytest.mark.parametrize(("size", "ahead"), [(4, 1), (5, 1), (5, 2), (5, 3)])
async def test_a_power_cut_for_all_right_after_a_goodbye(
    size: int, ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Some had begun the next attempt, the leaver is gone and the others are too few: those who know tell them."""
    swarm, begun = DarkSwarm(monkeypatch, tmp_path, size), set[int]()

    def cut(index: int, message: SignedMessage) -> None:
        if message.slot.stage == NEXT and len(begun) < ahead:
            begun.add(index)
            if len(begun) == ahead:
                swarm.cut([other for other in range(size) if other != LEAVER], PAUSE_S)

    swarm.meet(lambda index, stage: None, cut)
    outcome = await swarm.run()
    assert len(begun) == ahead
    assert sorted(peer.restarts for peer in outcome.honest) == [0, *[1] * (size - 1)]


async def test_a_power_cut_for_all_before_anybody_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Half are gone, and those who stay have signed nothing since: what settled it is on their disks all the same."""
    swarm, cut = DarkSwarm(monkeypatch, tmp_path, 4, leavers=(LEAVER, VICTIM)), list[int]()

    def lose_power(index: int, stage: Stage) -> None:
        if stage == NEXT and index not in cut:
            cut.append(index)
            swarm.cut([index], PAUSE_S)

    swarm.meet(lose_power, lambda index, said: None)
    await swarm.run()
    assert sorted(cut) == [0, 2]


async def test_who_was_away_for_two_settlements_is_told_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It dies before it begins the next attempt, which is over as well when it is back: a cheat was banned by then."""
    swarm, told = DarkSwarm(monkeypatch, tmp_path, 7, (CHEAT,)), defaultdict[int, set[bool]](set)
    find_proof = Adopting.find_proof

    def note(adopting: Adopting, attempt: int) -> bytes:
        proof = find_proof(adopting, attempt)
        told[attempt].add(bool(proof))
        return proof

    def cut(index: int, stage: Stage) -> None:
        if stage == NEXT and index == VICTIM and not swarm.hostile.swarm.outcomes[VICTIM].crashes:
            swarm.cut([VICTIM], AWAY_S)

    def say_otherwise(index: int, said: SignedMessage) -> None:
        if said.slot.stage == NEXT and index == CHEAT:
            other = swarm.hostile.sign(CHEAT, said.roster, NEXT, alter(said.payload), said.previous)
            swarm.hostile.tell(CHEAT, other)

    monkeypatch.setattr(Adopting, "find_proof", note)
    swarm.meet(cut, say_otherwise)
    outcome = await swarm.run()
    assert set(outcome.departures(DepartureKind.BAN)) == {CHEAT}
    assert outcome.peers[VICTIM].restarts == 1
    assert told[0] == {True}
    assert True in told[1]
