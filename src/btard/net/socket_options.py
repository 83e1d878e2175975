"""
What a connection's socket is told: little may wait in the kernel, and where no wire is, no wire is spared.

Bytes that the kernel holds unsent cannot be overtaken by a control frame, so it holds few.

Between two processes of one machine a byte costs processor time and nothing else. There a congestion control that
measures its way and paces by timers (BBR, where it is the system's) only adds to it, and what waits unsent leaves the
cache before it is copied (record 0028). On a network both are the owner's to choose.
"""

import socket
from contextlib import suppress

import trio

from btard.net.address import is_loopback

UNSENT_BYTES = 256 << 10
LOOPBACK_UNSENT_BYTES = 16 << 10


def set_options(sock: trio.socket.SocketType, host: str) -> None:
    """Prepare a connection to ``host``, a literal address.

    Raises:
        OSError: it is gone.
    """
    is_near = is_loopback(host)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        unsent = LOOPBACK_UNSENT_BYTES if is_near else UNSENT_BYTES
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
    if is_near and hasattr(socket, "TCP_CONGESTION"):
        with suppress(OSError):  # a system need not have it, or let us choose it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
