"""A stranger far away from bulk data: answers come before the bytes that they speak of."""

from pathlib import Path

from tests.swarm.joining_scenes import COMES_S, MEMBERS, SETTINGS, STRANGER, find, play, require_sound

from btard.identity import PeerId
from btard.net import Message
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.events import Promoted


def bulk_last(_sender: PeerId, _receiver: PeerId, message: Message) -> float:
    """Control messages take 50 ms, bulk data 300 ms."""
    return 0.05 if message.payload is None else 0.3


def test_honest_sources_are_not_called_liars_for_an_overtaken_answer(tmp_path: Path) -> None:
    """The bytes are waited for; the stranger gets the state, and is a member."""
    settings = {"genesis_size": MEMBERS, **SETTINGS}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path, joins={STRANGER: COMES_S}, delivery=bulk_last)
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)
