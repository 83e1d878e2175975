"""A connected socket that is tried before it is waited for.

The methods of trio's sockets give up their turn at each call, which costs the event loop more than a few hundred
kilobytes cost the kernel. Whoever uses this one gives others their turn now and then.
"""

import socket

import trio

SOCKET_ERRORS = (OSError, trio.ClosedResourceError, trio.BrokenResourceError)
"""What its methods raise once the connection, or this end of it, is gone."""


class EagerSocket:
    """Takes over the connection of ``sock``, which is of no use any more."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = socket.socket(fileno=sock.detach())
        self._socket.setblocking(False)

    def send(self, data: memoryview) -> int:
        """Return how many bytes the kernel takes at once, which may be none."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def receive_into(self, target: memoryview) -> int | None:
        """Return how many bytes were here and are in ``target`` now: None if there are none yet, 0 after the last."""
        try:
            return self._socket.recv_into(target)
        except BlockingIOError:
            return None

    async def wait_writable(self) -> None:
        """Return once the kernel takes more."""
        await trio.lowlevel.wait_writable(self._socket)

    async def wait_readable(self) -> None:
        """Return once there is more to read, or the connection ended."""
        await trio.lowlevel.wait_readable(self._socket)

    def finish(self) -> None:
        """Tell the peer that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection; whoever waits is released."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
