"""Attacks by members on strangers and candidates: to keep them out, to let cheats in, to lead them astray (B8)."""

from collections.abc import Callable

import trio
from msgspec.structs import replace

from btard.attacks.attacker import Attacker, choose
from btard.identity import JoinTicket, PeerId
from btard.net import Hub, Loan
from btard.rules.messages import AnyPayload, Commit, Stage
from btard.rules.roster import Roster
from btard.swarm.frames import Kind, Receipt, UpdateHead
from btard.swarm.joining.ticket_desk import Reply
from btard.swarm.records import decode_work
from btard.wire import encode


class SlanderCandidates(Attacker):
    """Charges every candidate that it is drawn to check."""

    def charge(self, round_number: int, candidate: PeerId, compute: Callable[[], bool]) -> bool:
        """Find everything false."""
        if not self.is_due(round_number):
            return compute()
        self.note_act(round_number)
        return True


class OverlookCandidates(Attacker):
    """Finds nothing false at any candidate that it is drawn to check."""

    def charge(self, round_number: int, candidate: PeerId, compute: Callable[[], bool]) -> bool:
        """Find everything true."""
        if not self.is_due(round_number):
            return compute()
        self.note_act(round_number)
        return False


class QuoteFalsely(Attacker):
    """Quotes in its COMMIT tickets that nobody solved and no sample that it heard, and charges whoever is a member."""

    def __init__(self, first_round: int, seed: int) -> None:
        super().__init__(first_round)
        self._seed = seed

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return a COMMIT with them."""
        if not isinstance(payload, Commit) or not self.act_in(stage):
            return payload
        self.note_act(stage.round)
        victim = choose(roster.members, "charged", self._seed, stage.round)
        friend = PeerId(bytes(31) + b"\x01")
        tickets = tuple(JoinTicket(key, max(0, stage.round - 1), 7, 7) for key in (friend, victim))
        return replace(payload, quotes=replace(payload.quotes, tickets=tickets, samples=(), charged=(victim,)))


class CloseTheDoor(Attacker):
    """Tells every stranger that the run is closed."""

    async def accompany(self, hub: Hub) -> None:
        """Answer tickets in place of the reception, once that is there."""

        async def refuse(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            self.note_act(self.newest_round)
            return encode(Receipt(int(Reply.CLOSED))), None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().accompany, hub)
            await _wait_served(hub, Kind.JOIN_TICKET)
            hub.serve[Kind.JOIN_TICKET] = refuse


async def _wait_served(hub: Hub, kind: Kind) -> None:
    """Return once the reception answers such requests; what it would say we say instead."""
    while kind not in hub.serve:  # noqa: ASYNC110  a cheat may look as often as it likes
        await trio.sleep(0.5)


class ForgePlaces(Attacker):
    """Hands candidates places that never were, and zeros in place of every aggregate."""

    def __init__(self, first_round: int, elements: int) -> None:
        super().__init__(first_round)
        self._zeros, self._count = bytes(4 * elements), 0

    async def accompany(self, hub: Hub) -> None:
        """Stand between the peer and its hub."""
        send = hub.send

        def send_other(peer: PeerId, kind: int, head: bytes) -> None:
            send(peer, kind, self._forge(peer, head) if kind == Kind.HANDOVER else head)

        async def lie(_peer: PeerId, _body: bytes) -> tuple[bytes, Loan | None]:
            await trio.lowlevel.checkpoint()
            return encode(UpdateHead(is_applied=True)), Loan(memoryview(self._zeros), trio.CancelScope())

        hub.send = send_other  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().accompany, hub)
            await _wait_served(hub, Kind.UPDATE)
            hub.serve[Kind.UPDATE] = lie

    def _forge(self, peer: PeerId, head: bytes) -> bytes:
        place = decode_work(head)
        if not self.is_due(place.round):
            return head
        self.note_act(place.round)
        self._count += 1
        lies = [
            replace(place, roster=tuple(sorted({*place.roster, peer})), newcomers=(peer,)),
            replace(place, roster=place.roster[:1]),
            replace(place, attempt=place.attempt + (1 << 40), roster=(), dismissed=(peer,)),
            replace(place, seal=replace(place.seal, run_id=bytes(32))),
        ]
        return encode(lies[self._count % len(lies)]) if self._count % 5 else b"\xc1" * 9
