"""
Who may begin a handshake now: strangers at a pace for each origin, each address block and all together.

A handshake, with the link that comes of it, costs milliseconds and its dialler a fresh key, which is nothing. So
beyond these paces a dialler is turned away after its first message, which costs neither keys nor a link:

1. An origin (see ``find_origin``) has `ORIGIN`, so whoever has one address of a block leaves room for its neighbours.
2. A block (see ``find_block``) has `BLOCK`; all strangers together have `TOTAL`: about a twentieth of a core.
3. Whom we know is named by its hail, and has `KNOWN` for itself, wherever it dials from: a flood from behind the
   same router does not keep a member out.

Links that are up are not concerned. Whoever is turned away dials again, or another peer.
"""

from collections import OrderedDict
from collections.abc import Callable

from btard.identity import PeerId
from btard.net.address import find_block, find_origin
from btard.net.hail import EPHEMERAL_SIZE, find_hail
from btard.net.half_open import Account
from btard.net.pace import MAX_REMEMBERED, Pace

ORIGIN = 1.0, 128
BLOCK = 2.0, 192
TOTAL = 16.0, 320
KNOWN = 2.0, 32
"""Handshakes a second on average, and at once: the start of a swarm on one machine is no flood."""


class Arrivals:
    """Decides for one listening peer of a run; ``is_known`` says who is no stranger, and bounds how many they are."""

    def __init__(self, run_id: bytes) -> None:
        self.is_known: Callable[[PeerId], bool] = lambda _peer: False
        self._run_id = run_id
        self._origins, self._blocks, self._total = Pace(*ORIGIN), Pace(*BLOCK), Pace(*TOTAL)
        self._known = Pace(*KNOWN)
        self._serials: OrderedDict[PeerId, int] = OrderedDict()

    def admit(self, host: str, first: bytes, now: float) -> Account | None:
        """Return on whose account a handshake with this first message, dialled from ``host``, may go on; count it.

        ``None`` if it may not.
        """
        peer, origin = self._recognise(first), find_origin(host)
        if peer is not None:
            return peer if _take(now, (self._known, peer)) else None
        is_in_time = _take(now, (self._origins, origin), (self._blocks, find_block(host)), (self._total, ""))
        return origin if is_in_time else None

    def _recognise(self, first: bytes) -> PeerId | None:
        """Return the known peer that hails, with a number that it has not used: what is overheard opens no door."""
        hail = find_hail(first)
        if hail is None or not self.is_known(peer := PeerId(hail.peer)):
            return None
        is_new = hail.serial > self._serials.get(peer, -1)
        if not is_new or not hail.is_signed(self._run_id, first[:EPHEMERAL_SIZE]):
            return None
        self._serials[peer] = hail.serial
        self._serials.move_to_end(peer)
        if len(self._serials) > MAX_REMEMBERED:
            self._serials.popitem(last=False)
        return peer


def _take(now: float, *events: tuple[Pace, str | PeerId]) -> bool:
    """Return whether all of these events are in time, and count them if so."""
    if any(pace.find_wait(key, now) for pace, key in events):
        return False
    for pace, key in events:
        pace.count(key, now)
    return True
