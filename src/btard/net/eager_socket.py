"""
A connected socket that is tried before it is waited for.

The methods of trio's sockets give up their turn at each call, which costs the event loop more than a few hundred
kilobytes cost the kernel. Whoever uses this one gives others their turn now and then.

Of many bytes it is cheapest to let the kernel wait: a call in a worker thread that blocks until a whole frame is
through costs no event, no poll and no Python for each of the ten pieces in which it comes. Such a call blocks for
some milliseconds at most, so that the thread is soon back to be cancelled or to serve another link.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trio

SOCKET_ERRORS = (OSError, trio.ClosedResourceError, trio.BrokenResourceError)
"""What its methods raise once the connection, or this end of it, is gone."""
BLOCK_MS = {socket.SO_SNDTIMEO: 20, socket.SO_RCVTIMEO: 5}
"""How long a call blocks: whoever reads from many waits for none of them for long."""


class EagerSocket:
    """Takes over the connection of ``sock``, which is of no use any more."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = socket.socket(fileno=sock.detach())
        self._socket.setblocking(True)
        for option, block_ms in BLOCK_MS.items():
            self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, 1000 * block_ms))
        self._lent = 0
        self._is_closed = False

    def send(self, data: memoryview) -> int:
        """Return how many bytes the kernel takes at once, which may be none."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def receive_into(self, target: memoryview) -> int | None:
        """Return how many bytes were here and are in ``target`` now: None if there are none yet, 0 after the last."""
        return self._receive(target, socket.MSG_DONTWAIT)

    def send_blocking(self, data: memoryview) -> int:
        """Be ``send``, in a thread, but wait while the kernel goes on taking bytes."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def receive_blocking(self, target: memoryview) -> int | None:
        """Be ``receive_into``, in a thread, but wait for as many as ``target`` holds."""
        return self._receive(target, socket.MSG_WAITALL)

    def _receive(self, target: memoryview, flags: int) -> int | None:
        try:
            return self._socket.recv_into(target, 0, flags)
        except BlockingIOError:
            return None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let a thread use the socket within: if it is closed meanwhile, its number is not given to another."""
        self._lent += 1
        try:
            yield
        finally:
            self._lent -= 1
            if self._is_closed and not self._lent:
                self._socket.close()

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
        if self._is_closed:
            return
        self._is_closed = True
        trio.lowlevel.notify_closing(self._socket)
        if self._lent:
            self._stop_threads()
        else:
            self._socket.close()

    def _stop_threads(self) -> None:
        with suppress(OSError):  # the other end was first
            self._socket.shutdown(socket.SHUT_RDWR)
