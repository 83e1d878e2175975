"""Whoever has links takes part in every recovery: before its first word, in a gradient, and after another one."""

from pathlib import Path

import pytest
import trio
from tests.swarm.conspiracy import ABSENT, A, B, Conspiracy, P, claim

from btard.identity import PeerId
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, Stage
from btard.swarm.frames import Kind

GRADIENT_S, PAUSE_S = 4.0, 1.0
FAR = Stage(10**6, 0, Phase.AGREE)


@pytest.mark.parametrize("number", [1, 2])
async def test_who_computes_takes_part_in_every_recovery(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Two recoveries while its gradient is computed: it is there in both, and what two cheats claim moves nobody."""
    commit = Stage(number, 0, Phase.COMMIT)
    conspiracy = Conspiracy(monkeypatch, tmp_path, commit)
    conspiracy.show = claim(FAR)
    conspiracy.slow_down(ABSENT, GRADIENT_S)

    async def script() -> None:
        await trio.sleep(PAUSE_S)
        conspiracy.halt(P)
        await trio.sleep(PAUSE_S)
        conspiracy.halt(proof=conspiracy.prove())

    outcome = await conspiracy.run(script)
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert len(outcome.state_roots) == 1
    assert set(outcome.departures(DepartureKind.BAN)) == {B}
    assert not outcome.departures(DepartureKind.REMOVAL)
    first = next(place for place, stage in enumerate(conspiracy.words) if stage[::2] == commit[::2])
    before = conspiracy.words[:first]
    assert [stage.serial for stage in before if stage.phase is Phase.VIEW] == [0, 1]


async def test_who_waits_for_data_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever asks for a slice that nobody serves stops asking when a new attempt begins, and takes part in that."""
    conspiracy = Conspiracy(monkeypatch, tmp_path, Stage(1, 0, Phase.COMMIT))
    conspiracy.cheat.deprived = conspiracy.hostile.peers[ABSENT]
    times: dict[str, float] = {}

    async def answer_never(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.sleep_forever()
        raise AssertionError

    async def script() -> None:
        conspiracy.hostile.hubs[conspiracy.hostile.peers[A]].serve[Kind.PULL_SLICE] = answer_never
        await trio.sleep(1.5)  # the slice is overdue after 1 s, and asked for then
        conspiracy.halt(proof=conspiracy.prove())
        times["halt"] = trio.current_time()
        while conspiracy.broadcasts[ABSENT].place.attempt == 0:
            await trio.sleep(0.01)
        times["next attempt"] = trio.current_time()

    outcome = await conspiracy.run(script)
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert times["next attempt"] - times["halt"] < 0.1
