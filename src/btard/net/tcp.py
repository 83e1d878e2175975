"""Links over TCP: dialling, listening, and the handshake that authenticates both ends."""

import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from btard.errors import BtardError, ConfigError, RemoteProtocolError, Unreachable
from btard.identity import Identity, PeerId, short
from btard.net.address import Address, find_origin
from btard.net.arrivals import Arrivals
from btard.net.eager_socket import SOCKET_ERRORS
from btard.net.hail import EPHEMERAL_SIZE
from btard.net.half_open import HANDSHAKE_SECONDS, HalfOpen
from btard.net.handshake import MAX_HANDSHAKE_MESSAGE, Credentials, Handshake, Introduction
from btard.net.socket_options import set_options
from btard.net.tcp_link import TcpLink
from btard.net.terms import Terms, check_terms
from btard.net.traffic import Traffic

ACCEPT_PAUSE_SECONDS = 0.1  # after the system refused to accept, most often for lack of file descriptors
LENGTH_SIZE = 2
SEND_THREADS = 16  # that send large payloads; each may be held up for some milliseconds by a slow peer
RECEIVE_THREADS = max(2, os.cpu_count() or 1)  # that receive them, and do what is to be done with them

log = structlog.get_logger(__name__)

_ShakeHands = Callable[["_HandshakeWire"], Awaitable[tuple[Introduction, Handshake, int]]]
"""Returns who is at the other end, the finished handshake, and the serial number of the link."""


class TcpTransport:
    """See ``Transport``; made by ``open_tcp``."""

    def __init__(
        self,
        credentials: Credentials,
        addresses: Sequence[Address],
        listeners: Sequence[trio.SocketListener],
        nursery: trio.Nursery,
    ) -> None:
        self.addresses = tuple(addresses)
        self.traffic = Traffic()
        self.arrivals = Arrivals(credentials.terms.run_id)
        self._credentials = credentials
        self._nursery = nursery
        self._half_open = HalfOpen()
        self._threads = trio.CapacityLimiter(SEND_THREADS), trio.CapacityLimiter(RECEIVE_THREADS)
        self._ready, self._accepted = trio.open_memory_channel[TcpLink](0)
        for listener in listeners:
            nursery.start_soon(self._listen, listener)

    @property
    def address(self) -> Address:
        """The first address we listen at."""
        return self.addresses[0]

    async def connect(self, address: Address, peer: PeerId | None) -> TcpLink:
        """See ``Transport.connect``."""
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                stream = await trio.open_tcp_stream(address.host, address.port)
                return await self._secure(stream.socket, lambda wire: self._dial(wire, peer))
        except trio.TooSlowError:
            raise Unreachable(f"{address} does not answer within {HANDSHAKE_SECONDS:.0f} s") from None
        except RemoteProtocolError as error:
            raise Unreachable(f"{address} is no peer of ours: {error}") from None
        except (EOFError, UnicodeError, *SOCKET_ERRORS) as error:
            raise Unreachable(f"cannot reach {address}: {_find_reason(error)}") from None

    async def accept(self) -> TcpLink:
        """See ``Transport.accept``."""
        return await self._accepted.receive()

    async def _listen(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except SOCKET_ERRORS as error:
                log.warning("cannot accept a connection", error=str(error))
                await trio.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                self._nursery.start_soon(self._answer, stream.socket)

    async def _answer(self, sock: trio.socket.SocketType) -> None:
        """Hand the connection to ``accept`` if its dialler completes the handshake in time."""
        host = _find_host_of(sock)
        with self._half_open.place(find_origin(host)) as place:
            try:
                link = await self._secure(sock, lambda wire: self._meet(wire, host, place))
                await self._offer(link)
            except _TurnedAway:
                log.debug("a stranger was turned away: too many come at once")
            except BtardError as error:
                log.info("a connection was refused", reason=str(error))
            except (EOFError, *SOCKET_ERRORS) as error:
                log.debug("a handshake broke off", error=str(error))
            except Exception:  # a bug here must not let one connection, of anybody, end the peer
                log.exception("a connection was dropped")

    async def _offer(self, link: TcpLink) -> None:
        try:
            await self._ready.send(link)
        except BaseException:
            await link.aclose()
            raise

    async def _secure(self, sock: trio.socket.SocketType, shake_hands: _ShakeHands) -> TcpLink:
        """Return the link that a successful handshake makes of ``sock``; closes it otherwise."""
        try:
            set_options(sock, _find_host_of(sock))
            theirs, handshake, serial = await shake_hands(_HandshakeWire(sock, self.traffic))
            check_terms(self._credentials.terms, theirs.terms)
        except BaseException:
            sock.close()
            raise
        host, keys = _find_host_of(sock), handshake.split()
        link = TcpLink(sock, PeerId(theirs.peer), serial, keys, self.traffic, host, self._threads)
        self._nursery.start_soon(link.live)
        return link

    async def _dial(self, wire: "_HandshakeWire", expected: PeerId | None) -> tuple[Introduction, Handshake, int]:
        now, handshake = time.time_ns(), Handshake(self._credentials, is_dialler=True)
        ephemeral = handshake.write()
        await wire.send(ephemeral + self._credentials.hail(now, ephemeral))
        theirs = handshake.read_introduction(await wire.receive())
        if expected is not None and theirs.peer != expected:
            raise RemoteProtocolError(f"it is {short(theirs.peer)}, not {short(expected)}")
        serial = max(now, theirs.serial)  # by the clock that is ahead: so those of both diallers can be compared
        await wire.send(handshake.write(self._credentials.introduce(serial)))
        return theirs, handshake, serial

    async def _meet(
        self, wire: "_HandshakeWire", host: str, place: trio.CancelScope
    ) -> tuple[Introduction, Handshake, int]:
        first = await wire.receive()  # a connection alone costs no cryptography
        account = self.arrivals.admit(host, first, trio.current_time())
        if account is None:
            raise _TurnedAway
        self._half_open.admit(place, account)
        handshake = Handshake(self._credentials, is_dialler=False)
        handshake.read(first[:EPHEMERAL_SIZE])
        await wire.send(handshake.write(self._credentials.introduce(time.time_ns())))
        theirs = handshake.read_introduction(await wire.receive())
        return theirs, handshake, theirs.serial


class _TurnedAway(Exception):
    """A dialler comes too early; see ``Arrivals``."""


def _find_reason(error: BaseException) -> object:
    """Return what the system said of each address of a name, where trio only says that it tried all."""
    group = error.__cause__
    causes = group.exceptions if isinstance(group, BaseExceptionGroup) else ()
    reasons = dict.fromkeys(cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror)
    return ", ".join(reasons) or error


def _find_host_of(sock: trio.socket.SocketType) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:  # it is gone already
        return ""


class _HandshakeWire:
    """The messages of a handshake on a socket, each with a 2-byte length."""

    def __init__(self, sock: trio.socket.SocketType, traffic: Traffic) -> None:
        self._socket = sock
        self._traffic = traffic

    async def send(self, message: bytes) -> None:
        data = len(message).to_bytes(LENGTH_SIZE, "big") + message
        sent = 0
        while sent < len(data):
            sent += await self._socket.send(data[sent:])
        self._traffic.count_sent(len(data), is_data=False)

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            RemoteProtocolError: it is longer than any that we accept.
            EOFError: the connection ended.
        """
        size = int.from_bytes(await self._receive_exactly(LENGTH_SIZE), "big")
        if size > MAX_HANDSHAKE_MESSAGE:
            raise RemoteProtocolError(f"a handshake message of {size} bytes is not allowed")
        return await self._receive_exactly(size)

    async def _receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            some = await self._socket.recv(size - len(data))
            if not some:
                raise EOFError("it hung up during the handshake, as peers do when too many strangers come at once")
            self._traffic.count_received(len(some), is_data=False)
            data += some
        return data


@asynccontextmanager
async def open_tcp(identity: Identity, terms: Terms, *listen: Address) -> AsyncIterator[TcpTransport]:
    """Listen at every one of ``listen`` and yield the transport; its ``addresses`` name the ports that were 0.

    An address of every interface is of its family alone: 0.0.0.0 and [::] may have the same port.

    Raises:
        ConfigError: nobody can listen at one of them.
    """
    listeners: list[trio.SocketListener] = []
    addresses: list[Address] = []
    failure: BaseException | None = None
    try:
        for address in listen:
            opened = await _open_listeners(address)
            listeners += opened
            addresses.append(Address(address.host, opened[0].socket.getsockname()[1]))
        async with trio.open_nursery() as nursery:
            try:
                yield TcpTransport(Credentials(identity, terms), addresses, listeners, nursery)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - kept aside, so that the nursery does not wrap it in a group
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.socket.close()
    if failure is not None:
        raise failure


async def _open_listeners(listen: Address) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(listen.port, host=listen.host)
    except (OSError, UnicodeError) as error:
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "another program uses this port; choose another" if is_taken else "choose an address of this machine"
        raise ConfigError(f"cannot listen at {listen}: {hint} ({error})") from None
