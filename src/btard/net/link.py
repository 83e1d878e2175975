"""The seam between a peer and its network: what a link and a transport promise, on TCP and in memory alike."""

from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

from btard.errors import LocalProtocolError
from btard.identity import PeerId
from btard.net.address import Address
from btard.net.traffic import Traffic

MAX_KIND = 255
MAX_CONTROL = 1 << 20  # bytes of one control message
MAX_HEADER = 16 << 10  # bytes of the header of a bulk message
WINDOW = 256 << 10  # bytes; see ``Window``
MAX_BULK = 1 << 38  # bytes of one payload: the whole vector, where one aggregator is left; its sink allocates it


class Message(NamedTuple):
    """One message of a link: a *control* message, or a *bulk* message if ``payload`` is not None.

    ``payload`` is then the memory that the sink gave, filled and authenticated; of a window, with what came last.
    """

    kind: int
    head: bytes
    payload: memoryview | None = None


class Window(NamedTuple):
    """Memory through which a payload passes: byte i comes to i modulo its length, a multiple of WINDOW bytes.

    ``take`` is called with how many bytes have come, in their order, after every WINDOW of them at the latest; they
    are overwritten after it returned. A worker thread calls it where there are any, so it may take its time. It raises
    nothing.
    """

    memory: memoryview
    take: Callable[[int], None]


Target = memoryview | Window
"""Where a payload goes."""

Sink = Callable[[int, bytes, int], Target | None]
"""Given (kind, head, size) of a bulk message, returns ``size`` writable bytes or a window, or None to refuse it.

May raise RemoteProtocolError, which ``Link.receive`` passes on.
"""


def refuse_bulk(kind: int, head: bytes, size: int) -> None:
    """Be the sink that wants no bulk message."""


def never() -> float:
    """Be the pace of whoever may send as much as it likes: no pause."""
    return 0.0


class Link(Protocol):
    """An authenticated, ordered connection to one peer.

    Control messages keep their order, bulk messages keep theirs, and a control message overtakes
    a bulk message that is under way. After any exception but Cancelled, and RemoteProtocolError
    in particular, the link is good only for ``aclose``.
    """

    peer: PeerId
    serial: int
    """A number that both ends see alike, larger for a later link between the same two, whoever dials."""
    host: str
    """The literal address of the other end, as we see it; empty where it was gone at once."""

    async def send(self, kind: int, head: bytes, payload: memoryview | None = None) -> None:
        """Hand one message to the network; ``payload`` may be reused afterwards. Several tasks may send at once.

        Cancelled in the midst of a bulk message it tells the receiver to forget that message.

        Raises:
            ConnectionLost: the link is gone.
        """

    def send_now(self, kind: int, head: bytes, payload: memoryview | None = None) -> bool:
        """Be ``send`` if nothing has to be waited for; else return False, and nothing was sent.

        Whoever calls this has checked the message (``check_message``).
        """

    async def receive(self, sink: Sink) -> Message:
        """Return the next complete message; refused and abandoned bulk messages are skipped. One task at a time.

        Raises:
            ConnectionLost: the link is gone.
            RemoteProtocolError: the peer broke the rules of the link.
        """

    async def listen(
        self, sink: Sink, take: Callable[[Message], None], find_pause: Callable[[], float] = never
    ) -> NoReturn:
        """Be ``receive`` over and over, and pass every message to ``take``, in the context of the calling task.

        ``find_pause`` is asked with everything that comes, but for a payload's bytes, how many seconds later what
        follows may be read; so long it stays with the sender. What comes through memory does not wait.

        Raises:
            ConnectionLost: the link is gone.
            RemoteProtocolError: the peer broke the rules of the link, or ``take`` says so.
        """

    def drop_bulk(self, target: memoryview | None) -> None:
        """If the payload being received goes into ``target``, throw the rest away: not one more byte goes there.

        None: wherever it goes.
        """

    def settle(self) -> None:
        """Return when no byte is read any more of a payload whose sending was cancelled."""

    async def finish(self) -> None:
        """Promise that nothing more will be sent; the peer's ``receive`` then ends, ours goes on."""

    async def aclose(self) -> None:
        """End the link at once, for both directions; idempotent, complete even if cancelled."""


class Transport(Protocol):
    """Makes links: dials, and listens at ``addresses``, if at any."""

    addresses: tuple[Address, ...]
    traffic: Traffic

    async def connect(self, address: Address, peer: PeerId | None) -> Link:
        """Return a new link to ``peer`` (None: to whoever answers at ``address``).

        Raises:
            Unreachable: nobody answers in time, or somebody else does.
            Refused: both belong to different runs or configurations; the message names the fields.
        """

    async def accept(self) -> Link:
        """Return the next link that a peer dialled."""


def check_message(kind: int, head: bytes, payload: memoryview | None) -> None:
    """Return if the message is within the limits of a link.

    Raises:
        LocalProtocolError: it is not; a bug on our side.
    """
    if not 0 <= kind <= MAX_KIND:
        raise LocalProtocolError(f"message kind {kind} is not in 0..{MAX_KIND}")
    if len(head) > (MAX_CONTROL if payload is None else MAX_HEADER):
        raise LocalProtocolError(f"a message of kind {kind} has {len(head)} bytes, too many to send")
    if payload is not None and (payload.nbytes != len(payload) or not payload.contiguous or len(payload) > MAX_BULK):
        raise LocalProtocolError(f"a payload of kind {kind} must be at most {MAX_BULK} contiguous single bytes")


def take_target(sink: Sink, kind: int, head: bytes, size: int) -> Target | None:
    """Return the sink's memory for a payload of ``size`` bytes, None if it refuses.

    Raises:
        LocalProtocolError: the sink gave memory of another shape.
    """
    target = sink(kind, head, size)
    if target is None:
        return None
    memory = find_memory(target)
    fits = bool(memory) and len(memory) % WINDOW == 0 if isinstance(target, Window) else len(memory) == size
    if not fits or memory.nbytes != len(memory) or memory.readonly:
        raise LocalProtocolError(f"the sink of kind {kind} gave {memory.nbytes} bytes for a payload of {size}")
    return target


def find_memory(target: Target) -> memoryview:
    """Return the memory of a target."""
    return target.memory if isinstance(target, Window) else target
