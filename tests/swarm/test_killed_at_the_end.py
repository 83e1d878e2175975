"""Whoever is killed as the others end finds them when it is back, and whoever had ended comes back for the others."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import PeerId
from btard.net import Message
from btard.sim import SimulatedSwarm
from btard.swarm.ledger import Ledger
from btard.swarm.rounds import Rounds

ROUNDS, SIZE, FIRST = 2, 5, 3


def lag_behind(swarm: list[SimulatedSwarm]) -> Callable[[PeerId, PeerId, Message], float]:
    """Let one member hear everything nearly Δ after the others, which end nearly Δ after it for that."""

    def deliver(_sender: PeerId, receiver: PeerId, _message: Message) -> float:
        index = next(index for index, one in enumerate(swarm[0].identities) if one.peer_id == receiver)
        return 0.9 if index == FIRST else 0.01 * (index + 1)

    return deliver


def read_ending(swarm: SimulatedSwarm, index: int) -> str:
    """How a peer's part in the run ended, as its ledger says; nothing if it goes on."""
    with Ledger.create(swarm.data_dir(index), swarm.config, swarm.identities[index].peer_id) as ledger:
        ending = ledger.ending()
    return "" if ending is None else ending[0]


def play_until_killed(
    directory: Path, patch: pytest.MonkeyPatch, count: int, find_backs_s: Callable[[set[int]], dict[int, float]]
) -> None:
    """Play a run in which members are killed when so many have ended, and are back after so long."""
    made, ended = list[SimulatedSwarm](), list[int]()
    killed, linger = list[int](), Rounds._linger

    async def kill_and_linger(rounds: Rounds) -> None:
        ended.append(next(peer.index for peer in swarm.outcomes if peer.peer == rounds._services.me))
        if len(ended) == count:
            for index, back_s in find_backs_s(set(ended)).items():
                killed.append(index)
                swarm.crash(index, back_s)
        await linger(rounds)

    patch.setattr(Rounds, "_linger", kill_and_linger)
    swarm = build(directory, {}, delivery=lag_behind(made), rounds=ROUNDS, genesis_size=SIZE)
    made.append(swarm)
    outcome = play(swarm)
    assert killed and all(outcome.peers[index].crashes for index in killed)
    assert [peer.error for peer in outcome.peers] == [None] * SIZE
    assert {read_ending(swarm, peer.index) for peer in outcome.peers} == {"finished"}
    require_sound(swarm, outcome)


@pytest.mark.parametrize("count", range(1, SIZE))
def test_a_power_cut_as_the_first_end_ends_no_run(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who had ended are needed once more by those who had not (seed 530977)."""
    play_until_killed(tmp_path, monkeypatch, count, lambda _ended: {index: 0.5 + 0.1 * index for index in range(SIZE)})


@pytest.mark.parametrize("back_s", [0.1, 1.5, 3.0])
def test_the_last_one_is_waited_for(back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed when all others have ended, and misses all that they said last."""
    play_until_killed(tmp_path, monkeypatch, SIZE - 1, lambda ended: dict.fromkeys(set(range(SIZE)) - ended, back_s))


@pytest.mark.parametrize("back_s", [0.5, 2.0, 3.0, 3.5, 3.8, 4.5])
def test_who_had_ended_needs_nobody(back_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed after its end, and finds the others about to leave, or gone."""
    play_until_killed(tmp_path, monkeypatch, SIZE, lambda _ended: {0: back_s})
