"""A stranger that looks for the run as all its members are started again."""

from pathlib import Path

import pytest
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, build, find, play, require_sound

from btard.net import Message
from btard.net.session import REQUEST
from btard.swarm.events import Promoted


@pytest.mark.parametrize("question", [1, 2, 4])
def test_whoever_asks_for_the_line_in_a_power_cut_of_all_members_dials_them_again(
    tmp_path: Path, question: int
) -> None:
    """It loses every link at once, as a question of its is under way."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, rounds=60)
    asked, before = list[float](), swarm.network.on_arrival

    def cut_power(sender: bytes, receiver: bytes, message: Message, now: float) -> None:
        before(sender, receiver, message, now)
        if message.kind == REQUEST and sender == swarm.identities[STRANGER].peer_id:
            asked.append(now)
            if len(asked) == question:
                for index in range(MEMBERS):
                    swarm.crash(index, 0.5)

    swarm.network.on_arrival = cut_power
    outcome = play(swarm)
    assert all(swarm.outcomes[index].crashes for index in range(MEMBERS))
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)
