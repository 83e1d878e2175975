"""Attacks by candidates: to become a member without the work, or to be in the way (attacks B8, B10)."""

import random
from collections.abc import Callable

import trio
from msgspec.structs import replace

from btard.attacks.attacker import Attacker, Vanished, choose
from btard.identity import JoinTicket, PeerId
from btard.net import Hub
from btard.rules.messages import Report
from btard.swarm.frames import Kind, SampleHead
from btard.wire import decode, encode

LIKELY_NORM = 1.0


class IdleCandidate(Attacker):
    """Computes no gradient on probation; what it says instead is drawn, well-formed, and of a likely size.

    It is idle in one of ``every`` rounds; ``skipped`` has these.
    """

    def __init__(self, first_round: int, seed: int, me: PeerId, projections: int, *, every: int = 1) -> None:
        super().__init__(first_round)
        self._seed, self._me, self._projections, self._every = seed, me, projections, every
        self.skipped: set[int] = set()

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return a sample of nothing."""
        is_idle = choose(range(self._every), "at work", self._seed, self._me, round_number) == 0
        if not self.is_due(round_number) or not is_idle:
            return compute()
        self.note_act(round_number)
        self.skipped.add(round_number)
        draw = random.Random(choose(range(1 << 32), "idle", self._seed, self._me, round_number))  # noqa: S311
        return Report(tuple(draw.gauss(0.0, LIKELY_NORM) for _ in range(self._projections)), LIKELY_NORM)


class LyingSample(Attacker):
    """Computes, and says ``1 + share`` times what it found: with a small share, as another kind of machine might."""

    def __init__(self, first_round: int, share: float) -> None:
        super().__init__(first_round)
        self._factor = 1 + share
        self.skipped: set[int] = set()

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return a longer sample."""
        true = compute()
        if not self.is_due(round_number):
            return true
        self.note_act(round_number)
        self.skipped.add(round_number)
        return Report(tuple(self._factor * value for value in true.projections), self._factor * true.norm)


class TwoFacedCandidate(Attacker):
    """Tells every member another sample."""

    async def accompany(self, hub: Hub) -> None:
        """Stand between the peer and its hub."""
        send = hub.send

        def send_other(peer: PeerId, kind: int, head: bytes) -> None:
            if kind == Kind.SAMPLE and self.is_due((said := decode(head, SampleHead)).round):
                self.note_act(said.round)
                head = encode(replace(said, report=replace(said.report, norm=float(peer[0]))))
            send(peer, kind, head)

        hub.send = send_other  # type: ignore[method-assign]
        await super().accompany(hub)


class LeavingCandidate(Attacker):
    """Works in some rounds and vanishes."""

    def __init__(self, first_round: int, rounds: int) -> None:
        super().__init__(first_round)
        self._left = rounds

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return a true sample.

        Raises:
            Vanished: we had enough.
        """
        if self._left == 0:
            self.note_act(round_number)
            raise Vanished("vanished on probation")
        self._left -= 1
        return compute()


class FalseTicket(Attacker):
    """Shows tickets that nobody has solved, or, ``is_foreign``, one that belongs to another key."""

    def __init__(self, first_round: int, seed: int, *, is_foreign: bool = False) -> None:
        super().__init__(first_round)
        self._seed, self._is_foreign = seed, is_foreign

    def ticket(self, ticket: JoinTicket) -> JoinTicket:
        """Return a worthless ticket."""
        self.note_act(ticket.round)
        if self._is_foreign:
            return replace(ticket, peer=bytes(31) + b"\x01")
        return replace(ticket, nonce=ticket.nonce + choose(range(1, 1 << 20), "nonce", self._seed, ticket.round))


class StaleTicket(Attacker):
    """Shows the first ticket that it worked for again and again, whatever came of it, and never another."""

    def __init__(self, first_round: int) -> None:
        super().__init__(first_round)
        self._first: JoinTicket | None = None

    def ticket(self, ticket: JoinTicket) -> JoinTicket:
        """Return the first one."""
        if self._first is None:
            self._first = ticket
        elif self._first != ticket:
            self.note_act(ticket.round)
        return self._first


class FloodingStranger(Attacker):
    """Says what means nothing to everybody, as a stranger and as a candidate, and goes on."""

    PAUSE_S = 0.5

    async def accompany(self, hub: Hub) -> None:
        """Send samples of no round and of no gradient, places, and bytes, a few at a time."""
        report = Report((0.0,) * 10, 1.0)
        bodies = [encode(SampleHead(1 << 40, 1 << 40, report)), encode(SampleHead(1, 0, Report((), 1.0))), b"\xff" * 99]
        self.note_act(self.first_round)
        while True:
            await trio.sleep(self.PAUSE_S)
            for peer in sorted(hub.connected):
                for body in bodies:
                    for kind in (Kind.SAMPLE, Kind.HANDOVER):
                        hub.send(peer, kind, body)
