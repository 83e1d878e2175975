"""The founder's half of the genesis: whom it takes, and what it tells the others."""

import pytest
from tests.rules.build import make_config

from btard.errors import Refused
from btard.identity import Identity
from btard.net import Hub, Terms
from btard.net.memory import MemoryNetwork
from btard.swarm.genesis import STARTED, Founder, make_hello

STATE = b"s" * 32
FOUNDER, *OTHERS = (Identity(bytes([number]) * 32) for number in range(1, 5))
CONFIG = make_config(founder=FOUNDER.peer_id.hex(), genesis_size=3, max_gradient_s=2.0)


@pytest.fixture
def founder() -> Founder:
    """A founder that waits for two more."""
    transport = MemoryNetwork().transport(FOUNDER, Terms(CONFIG.run_id, CONFIG.field_digests))
    return Founder(FOUNDER, CONFIG, Hub(transport, FOUNDER.peer_id), STATE)


def test_slow_gradient_is_refused_with_the_limit(founder: Founder) -> None:
    """Nobody can promise so slow a gradient that every deadline of the run becomes hours."""
    with pytest.raises(Refused, match="a gradient takes you 3 s, the run allows 2 s"):
        founder.admit(make_hello(OTHERS[0], CONFIG, STATE, 2501))
    assert founder.admit(make_hello(OTHERS[0], CONFIG, STATE, 2000)) == OTHERS[0].peer_id


def test_other_initial_parameters_are_refused(founder: Founder) -> None:
    """Whoever starts from another x_0 would be voted out in the first round: it is told at once."""
    with pytest.raises(Refused, match="initial parameters differ"):
        founder.admit(make_hello(OTHERS[0], CONFIG, b"t" * 32, 5))


def test_full_roster_refuses_newcomers_and_answers_members_again(founder: Founder) -> None:
    """A member that lost its link may say HELLO again; a fourth one comes too late."""
    for identity in (FOUNDER, *OTHERS[:2]):
        founder.admit(make_hello(identity, CONFIG, STATE, 5))
    assert founder.admit(make_hello(OTHERS[0], CONFIG, STATE, 5)) == OTHERS[0].peer_id
    with pytest.raises(Refused, match=STARTED):
        founder.admit(make_hello(OTHERS[2], CONFIG, STATE, 5))
