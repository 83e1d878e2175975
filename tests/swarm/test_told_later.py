"""Who missed a settlement is told it as soon as it is there again, and believes it."""

from pathlib import Path

import pytest
import trio
from tests.swarm.conspiracy import ABSENT, A, Conspiracy, P, claim

from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, Stage
from btard.swarm.events import Stranded

Clock = trio.testing.MockClock
COMMIT = Stage(2, 0, Phase.COMMIT)
AWAY_S, SLOW_S = 11.0, 20.0
"""Longer than a fallback at n = 5; how long A keeps all others in AGGREGATE."""


@pytest.mark.parametrize("is_dead", [False, True], ids=["cut off", "started again"])
async def test_who_was_away_learns_what_was_settled(
    is_dead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Conclusions settle a recovery without it, and views of two cheats say that all was in round 0."""
    conspiracy = Conspiracy(monkeypatch, tmp_path, COMMIT)
    conspiracy.spoils_ballots = True
    if is_dead:
        conspiracy.show = claim(Stage(0, 0, Phase.COMMIT))

    async def script() -> None:
        conspiracy.slow_down(A, SLOW_S)
        await trio.sleep(0.5)
        conspiracy.slow_down(-1, 0.0)
        conspiracy.is_cut = not is_dead
        if is_dead:
            conspiracy.hostile.swarm.crash(ABSENT, AWAY_S)
        halt = conspiracy.halt(P)
        await trio.sleep(AWAY_S)
        conspiracy.spoils_ballots = False
        if not is_dead:
            conspiracy.mend()
            await trio.sleep(0.5)
            conspiracy.hostile.tell(A, halt.envelope, [ABSENT])

    outcome = await conspiracy.run(script)
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert not [event for event in outcome.peers[ABSENT].events if isinstance(event, Stranded)]
    assert len(outcome.state_roots) == 1


async def test_who_is_halted_alone_is_told_why_nobody_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It enters a recovery as its links go dead, and waits; to its RESUME the others show what it missed."""
    conspiracy = Conspiracy(monkeypatch, tmp_path, COMMIT)
    conspiracy.spoils_ballots = True

    async def script() -> None:
        conspiracy.slow_down(A, SLOW_S)
        await trio.sleep(0.5)
        conspiracy.slow_down(-1, 0.0)
        conspiracy.halt(P)
        conspiracy.is_cut = True
        await trio.sleep(AWAY_S)
        conspiracy.spoils_ballots = False
        conspiracy.mend()

    outcome = await conspiracy.run(script)
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert len([event for event in outcome.peers[ABSENT].events if isinstance(event, Stranded)]) == 1
    assert len(outcome.state_roots) == 1
