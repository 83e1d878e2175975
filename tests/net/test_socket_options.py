"""What the socket of a connection is told: between two processes of one machine nothing paces, elsewhere the system."""

import socket

import pytest
import trio

from btard.net import is_loopback
from btard.net.socket_options import LOOPBACK_UNSENT_BYTES, UNSENT_BYTES, set_options

CONGESTION = getattr(socket, "TCP_CONGESTION", None)
UNSENT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def read_options(host: str) -> tuple[bool, int | None, bytes | None]:
    """Whether small writes go at once, what may wait unsent, which congestion control a connection to ``host`` has."""
    with trio.socket.socket() as sock:
        set_options(sock, host)
        unsent = sock.getsockopt(socket.IPPROTO_TCP, UNSENT) if UNSENT is not None else None
        congestion = sock.getsockopt(socket.IPPROTO_TCP, CONGESTION, 16) if CONGESTION is not None else None
        is_eager = bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return is_eager, unsent, congestion.rstrip(b"\0") if congestion is not None else None


async def test_a_network_keeps_the_systems_congestion_control():
    """Whatever the owner of the machine chose goes to other machines."""
    with trio.socket.socket() as untouched:
        chosen = untouched.getsockopt(socket.IPPROTO_TCP, CONGESTION, 16).rstrip(b"\0") if CONGESTION else None
    assert read_options("192.0.2.1") == (True, UNSENT_BYTES if UNSENT is not None else None, chosen)


@pytest.mark.skipif(CONGESTION is None, reason="this system has one congestion control for all")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_nothing_paces_what_never_leaves_the_machine(host):
    """Reno knows no timers, and little waits in the kernel."""
    assert read_options(host) == (True, LOOPBACK_UNSENT_BYTES, b"reno")


async def test_a_system_that_does_not_let_us_choose_is_left_as_it_is(monkeypatch):
    """The connection works all the same."""
    monkeypatch.setattr(socket, "TCP_CONGESTION", 0x7FFF, raising=False)
    assert read_options("127.0.0.1")[0]


@pytest.mark.parametrize("host", ["", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "localhost.example"])
def test_other_machines_are_not_this_one(host):
    """Neither is a peer that was gone before its address was known."""
    assert not is_loopback(host)
