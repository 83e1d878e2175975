"""
Check-ups: what a member tells whoever is about to join (``btard-peer doctor``), who may be anybody.

It tells its clock, its versions and how far the run is; and, asked to, it dials the asker back, so that
somebody behind a closed port learns so before the training does. What a dial must not become:

1. A way to make us knock at others' doors: we dial the address that the asker's own link comes from, and
   no other; on our own machine only if we listen there only, for a link from there may be a proxy's.
2. A way to make us busy: one dial at a time, each for `DIAL_SECONDS`, one origin's every `PAUSE_SECONDS`.
3. A way to look at services: ports below `FIRST_PORT` are not dialled, what we send there is the first
   message of a handshake, of which the asker chooses nothing, and the answer is one of a few words.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import Annotated

import trio
from msgspec import Meta, Struct

from btard.dht.server import wall_clock_ms
from btard.errors import NetworkError, Refused
from btard.identity import PeerId
from btard.net import Address, Hub, Transport, find_origin, is_loopback
from btard.rules.messages import Count
from btard.swarm.frames import Kind
from btard.wire import PROTOCOL, decode, encode, find_version

DIAL_SECONDS = 4.0
PAUSE_SECONDS = 5.0
MAX_ORIGINS = 1024
"""Origins remembered at once; the one dialled longest ago is forgotten first."""
FIRST_PORT = 1024
MAX_QUESTION = 64
MAX_ANSWER = 512
"""Bytes of a check-up in both directions; beyond them nothing is decoded."""
MAX_WORD = 64

_Word = Annotated[str, Meta(max_length=MAX_WORD)]


class Dialled(IntEnum):
    """What came of a dial back."""

    NOT_ASKED = 0
    REACHED = 1
    SILENT = 2
    """Nothing answered within `DIAL_SECONDS`."""
    FAILED = 3
    """The connection was refused, or somebody else answered."""
    BUSY = 4
    """We dialled lately, for the asker's origin or somebody else."""
    UNWILLING = 5
    """Not an address or port that we dial."""


class Question(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks how a member is, and, unless ``port`` is 0, whether it reaches us at that port."""

    port: Annotated[int, Meta(ge=0, le=65_535)]


class Answer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a member says of itself and of the asker; nobody is bound to say the truth.

    ``unix_ms`` is its clock when it answers, ``host`` where it sees the asker. ``round`` counts the rounds done,
    ``members`` is 0 before genesis, ``links`` the others of them that it has a link to, ``gradient_ms`` the slowest
    gradient promised at genesis, 0 if unknown.
    """

    unix_ms: Count
    host: _Word
    dialled: Dialled
    protocol: Count
    btard: _Word
    torch: _Word
    round: Count
    members: Count
    links: Count
    gradient_ms: Count


@dataclass(frozen=True)
class Stage:
    """How far a run is, as one member sees it; see ``Answer``."""

    round: int = 0
    members: int = 0
    links: int = 0
    gradient_ms: int = 0


class Turns:
    """Who may have us dial now: nobody while we dial, an origin once in `PAUSE_SECONDS`."""

    def __init__(self) -> None:
        self._is_taken = False
        self._last: OrderedDict[str, float] = OrderedDict()

    def take(self, origin: str, now: float) -> bool:
        """Return whether ``origin`` has its turn now, ``release`` must then follow; times are in seconds."""
        if self._is_taken or now - self._last.get(origin, -PAUSE_SECONDS) < PAUSE_SECONDS:
            return False
        self._is_taken = True
        self._last.pop(origin, None)
        self._last[origin] = now
        if len(self._last) > MAX_ORIGINS:
            self._last.popitem(last=False)
        return True

    def release(self) -> None:
        """End the turn that was taken."""
        self._is_taken = False


def is_dialled_back(host: str, port: int, listen: Iterable[str]) -> bool:
    """Return whether we, who listen at all of ``listen``, dial back somebody whose link comes from ``host``."""
    try:
        caller = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    is_elsewhere = not (caller.is_loopback or caller.is_unspecified or caller.is_multicast)
    return port >= FIRST_PORT and (is_elsewhere or (caller.is_loopback and all(map(is_loopback, listen))))


class CheckUps:
    """Answers check-ups, with ``tell`` for how far the run is and ``now_ms`` for Unix time in milliseconds."""

    def __init__(
        self, hub: Hub, transport: Transport, tell: Callable[[], Stage], now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._hub, self._transport, self._tell, self._now_ms = hub, transport, tell, now_ms
        self._turns = Turns()
        self._btard, self._torch = (find_version(name)[:MAX_WORD] for name in ("btard", "torch"))
        hub.serve[Kind.CHECK_UP] = self._serve

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        question: Question = decode(body, Question, limit=MAX_QUESTION)
        host = self._hub.find_host(peer)
        dialled = await self._dial_back(peer, host, question.port) if question.port else Dialled.NOT_ASKED
        stage = self._tell()
        answer = Answer(
            self._now_ms(),
            host[:MAX_WORD],
            dialled,
            PROTOCOL,
            self._btard,
            self._torch,
            stage.round,
            stage.members,
            stage.links,
            stage.gradient_ms,
        )
        return encode(answer), None

    async def _dial_back(self, peer: PeerId, host: str, port: int) -> Dialled:
        if not is_dialled_back(host, port, [address.host for address in self._transport.addresses]):
            return Dialled.UNWILLING
        if not self._turns.take(find_origin(host), trio.current_time()):
            return Dialled.BUSY
        try:
            return await self._knock(peer, Address(host, port))
        finally:
            self._turns.release()

    async def _knock(self, peer: PeerId, address: Address) -> Dialled:
        """Say whether ``peer`` itself answers at ``address``; the link is used for nothing else."""
        with trio.move_on_after(DIAL_SECONDS):
            try:
                link = await self._transport.connect(address, peer)
            except (NetworkError, Refused):
                return Dialled.FAILED
            await link.aclose()
            return Dialled.REACHED
        return Dialled.SILENT


async def ask_for_check_up(hub: Hub, peer: PeerId, port: int, timeout_s: float) -> Answer:
    """Return what ``peer``, to whom there is a link, answers; ``port`` is where it shall dial us, 0 for nowhere.

    Raises:
        NetworkError: no answer within ``timeout_s``.
        RemoteProtocolError: the answer is none.
    """
    reply = await hub.request(peer, Kind.CHECK_UP, encode(Question(port)), timeout_s=timeout_s)
    answer: Answer = decode(reply.head, Answer, limit=MAX_ANSWER)
    return answer
