"""Floods of worthless tickets at a member's hub: a link ends at a stated number of them, and strangers wait."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.rules.build import make_config

from btard.errors import NetworkError
from btard.identity import Identity, JoinTicket, Puzzle
from btard.identity.work import find_identity_nonce
from btard.net import Hub, MemoryNetwork, Terms
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, Receipt
from btard.swarm.joining.reception import Reception
from btard.swarm.joining.ticket_desk import MAX_FALSE, MAX_VAIN, Reply
from btard.swarm.joining.turnstile import BLOCK
from btard.wire import decode, encode

Clock = trio.testing.MockClock
CONFIG = make_config(identity_bits=3, ticket_bits=8, ticket_memory_kib=8, ticket_window=16)
TERMS = Terms(CONFIG.run_id)
ME, STRANGER = (Identity(bytes([number]) * 32) for number in (205, 206))
PEER = STRANGER.peer_id
ROUND = 40
Q = b"q" * 32
IDENTITY_NONCE = find_identity_nonce(PEER, CONFIG.identity_bits, 0, 10_000) or 0
PUZZLE = Puzzle(CONFIG.run_id, PEER, IDENTITY_NONCE, ROUND - 2, Q, CONFIG.ticket_memory_kib, CONFIG.ticket_bits)
UNSOLVED = [PUZZLE.make_ticket(nonce) for nonce in range(2 * MAX_VAIN) if not PUZZLE.is_solved_by(nonce)]
NO_WORK = JoinTicket(
    PEER, ROUND - 2, next(n for n in range(99) if find_identity_nonce(PEER, CONFIG.identity_bits, n, 1) is None), 0
)


class Desk:
    """A member's reception, and a stranger's link to it."""

    def __init__(self) -> None:
        network, self.tasks = MemoryNetwork(), list[Any]()
        self._transport = network.transport(ME, TERMS)
        self.member = Hub(self._transport, ME.peer_id)
        self.stranger = Hub(network.transport(STRANGER, TERMS), PEER)
        ledger: Any = SimpleNamespace(
            seals_from=lambda number, _count: iter([SimpleNamespace(round=number, q=Q, ticket_bits=CONFIG.ticket_bits)])
        )
        given: Any = SimpleNamespace()
        self.reception = Reception(
            CONFIG,
            ME.peer_id,
            self.member,
            given,
            Conduct(),
            InlineCompute(),
            ledger,
            given,
            self.tasks.append,  # type: ignore[arg-type]
        )
        self.begin_round(ROUND)

    async def meet(self) -> None:
        """Return with a new link."""
        await self.stranger.connect(ME.peer_id, self._transport.address)
        await self.member.wait_connected([PEER])

    async def show(self, ticket: JoinTicket) -> Reply | None:
        """Return what the member says to a ticket; None if the link is cut."""
        try:
            answer = await self.stranger.request(ME.peer_id, Kind.JOIN_TICKET, encode(ticket), timeout_s=60.0)
        except NetworkError:
            return None
        return Reply(decode(answer.head, Receipt).reply)

    async def show_all(self, tickets: Sequence[JoinTicket]) -> Sequence[Reply | None]:
        """Show one ticket after another."""
        return [await self.show(ticket) for ticket in tickets]

    def begin_round(self, number: int, candidates: Sequence[Any] = ()) -> None:
        """Let the member begin a round."""
        seal = SimpleNamespace(candidates=candidates, roster=(ME.peer_id,), banned=(), round=number - 1, admitted=0)
        place = {"round": number, "attempt": 0, "parameters": None, "q": Q, "checks": (), "newcomers": frozenset()}
        state: Any = SimpleNamespace(seal=seal, roster=SimpleNamespace(members=()), **place)
        self.reception.begin_round(state)


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """A member and a stranger who have met."""
    desk = Desk()
    async with trio.open_nursery() as nursery:
        for hub in (desk.member, desk.stranger):
            await nursery.start(hub.run)
        await desk.meet()
        yield desk
        nursery.cancel_scope.cancel()


async def test_false_tickets_end_the_link(autojump_clock: Clock) -> None:
    """At the third, and at once when the key comes back."""
    async with open_desk() as desk:
        assert await desk.show_all([NO_WORK] * MAX_FALSE) == [Reply.IDENTITY] * (MAX_FALSE - 1) + [None]
        await desk.meet()
        assert await desk.show(UNSOLVED[0]) is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [(Reply.FUTURE, ROUND), (Reply.STALE, ROUND - 1 - CONFIG.ticket_window), (Reply.STALE, 0)],
)
async def test_tickets_in_vain_end_the_link(autojump_clock: Clock, reply: Reply, number: int) -> None:
    """At the one beyond MAX_VAIN; the key is listened to as soon as it has shown none for a while."""
    ticket = JoinTicket(PEER, number, IDENTITY_NONCE, 0)
    async with open_desk() as desk:
        assert await desk.show_all([ticket] * (MAX_VAIN + 1)) == [reply] * MAX_VAIN + [None]
        await desk.meet()
        assert await desk.show(ticket) is None
        await trio.sleep(60)
        await desk.meet()
        assert await desk.show(ticket) is reply


async def test_tickets_that_take_each_others_place_end_the_link(autojump_clock: Clock) -> None:
    """A new wrong nonce is taken each time, and that is no more than a ticket in vain."""
    async with open_desk() as desk:
        replies = await desk.show_all(UNSOLVED[: MAX_VAIN + 2])
        assert replies == [Reply.TAKEN] * (MAX_VAIN + 1) + [None]


async def test_tickets_found_false_by_evaluation_end_the_link(autojump_clock: Clock) -> None:
    """As the third is evaluated, without another word of the key."""
    async with open_desk() as desk:
        for number in range(MAX_FALSE):
            assert desk.stranger.is_connected(ME.peer_id)
            assert await desk.show(UNSOLVED[number]) is Reply.TAKEN
            desk.begin_round(ROUND + number)
            await desk.tasks.pop()()
        await desk.stranger.wait_lost(ME.peer_id)


async def test_a_place_lets_a_key_begin_anew(autojump_clock: Clock) -> None:
    """What it showed in vain before it was a candidate ends no link; being one for long forgives no more."""
    late, guest = JoinTicket(PEER, ROUND + 9, IDENTITY_NONCE, 0), SimpleNamespace(peer=PEER, since=ROUND)
    async with open_desk() as desk:
        for _ in range(2):
            assert await desk.show_all([late] * MAX_VAIN) == [Reply.FUTURE] * MAX_VAIN
            desk.begin_round(ROUND + 1, [guest])
        assert await desk.show(late) is None


async def test_strangers_wait_before_the_desk(autojump_clock: Clock) -> None:
    """Beyond the burst of an address block each ticket waits for its turn, good or not."""
    per_s, burst = BLOCK
    async with open_desk() as desk:
        desk.member.find_host = lambda peer: "127.9.9.5"  # type: ignore[method-assign]
        serve, begun = desk.member.serve[Kind.JOIN_TICKET], trio.current_time()
        for _ in range(burst):
            await serve(PEER, encode(NO_WORK))
        assert trio.current_time() == begun
        for _ in range(16):
            await serve(PEER, encode(NO_WORK))
        assert trio.current_time() - begun == pytest.approx(16 / per_s)
