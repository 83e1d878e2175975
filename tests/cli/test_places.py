"""The addresses of a command line: given once or several times, or ``none``."""

import pytest

from btard.cli.places import ANY_PORT, ANYWHERE, MAX_PLACES, choose_listening, parse_announced, parse_places
from btard.dht.contact import MAX_ADDRESSES
from btard.errors import ConfigError
from btard.net import Address

HOME, SIX = Address("192.0.2.7", 4001), Address("2001:db8::7", 4001)
FOUNDERS = Address("192.0.2.1", 4000)


def test_several_addresses():
    """Addresses stay in their order, IPv6 in brackets, each once."""
    assert parse_places([str(HOME), str(SIX), "192.0.2.7:4001"]) == (HOME, SIX)
    assert parse_announced([str(SIX), str(HOME)]) == (SIX, HOME)


def test_as_many_as_a_contact_record_holds():
    """Whatever may be given can be announced."""
    assert MAX_PLACES == MAX_ADDRESSES


def test_nothing_and_nobody_differ():
    """Without --announce we are where we listen; with none we are nowhere."""
    assert parse_announced([]) is None
    assert parse_announced(["none"]) == ()


@pytest.mark.parametrize(
    ("announce", "words"),
    [
        (["none", str(HOME)], "leave it out"),
        (["none", "none"], "leave it out"),
        (["my.example.org:0"], "give the port too"),
        (["nowhere"], "is not an address"),
        ([f"192.0.2.7:{port}" for port in range(4001, 4010)], "9 addresses are too many"),
    ],
)
def test_what_cannot_be_announced(announce, words):
    """One line says what to change."""
    with pytest.raises(ConfigError, match=words):
        parse_announced(announce)


@pytest.mark.parametrize(
    ("listen", "announced", "founders", "listening"),
    [
        ([], None, None, (ANY_PORT,)),
        ([], None, FOUNDERS, (FOUNDERS,)),
        ([], (HOME,), None, (ANY_PORT,)),
        ([], (), None, (ANYWHERE,)),
        ([str(HOME), str(SIX)], (), None, (HOME, SIX)),
        ([str(HOME)], None, FOUNDERS, (HOME,)),
    ],
)
def test_where_a_peer_listens(listen, announced, founders, listening):
    """What is said counts; else loopback, the founder's place, or, for who only dials out, a socket that can do so."""
    assert choose_listening(listen, announced, founders) == listening


def test_a_founder_must_be_reachable():
    """Everybody comes to the founder first."""
    with pytest.raises(ConfigError, match="must be reachable"):
        choose_listening([], (), FOUNDERS)
