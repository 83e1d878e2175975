"""The desk for join tickets: few are evaluated, honest newcomers are not kept out, and a false ticket costs little."""

import msgspec
import pytest
import trio
import trio.lowlevel
from tests.rules.build import make_config

from btard.dht.limits import TokenBucket
from btard.identity import JoinTicket, PeerId, Puzzle
from btard.identity.work import MAX_NONCE, find_identity_nonce
from btard.swarm.joining import ticket_desk
from btard.swarm.joining.candidacy import PRESENT_S
from btard.swarm.joining.ticket_desk import (
    BLOCK_BURST,
    BLOCK_PER_SECOND,
    FALSE,
    MAX_FALSE,
    MAX_KEPT,
    MAX_TICKET_BYTES,
    MAX_VAIN,
    SHUT_SECONDS,
    TOTAL_BURST,
    TOTAL_PER_SECOND,
    Outlook,
    Reply,
    TicketDesk,
    explain,
)
from btard.wire import encode

CONFIG = make_config(identity_bits=3, ticket_bits=4, ticket_memory_kib=8, ticket_window=16)
Q, NEWEST, ROUND = b"q" * 32, 30, 25
EVALUATION_S = 0.012
HOME = "127.9.9.5"


class SlowCompute:
    """Runs work inline after the virtual seconds that an evaluation takes; knows how many ran, and at once."""

    seconds = EVALUATION_S

    def __init__(self):
        self.count = self.busy = self.most_at_once = 0

    async def run(self, work):
        self.count, self.busy = self.count + 1, self.busy + 1
        self.most_at_once = max(self.busy, self.most_at_once)
        await trio.sleep(self.seconds)
        self.busy -= 1
        return work()


def look(ticket):
    """What a member knows: the draws of rounds 20 to 30."""
    return Outlook(NEWEST, Q if 20 <= ticket.round <= NEWEST else None, CONFIG.ticket_bits)


def make_peer(number):
    """One of many keys."""
    return PeerId(number.to_bytes(4, "big") + b"k" * 28)


def make_ticket(peer, *, is_solved=True, number=ROUND):
    """A ticket with identity work, and with or without the work on the round's draw."""
    identity = find_identity_nonce(peer, CONFIG.identity_bits, 0, 10_000)
    puzzle = Puzzle(CONFIG.run_id, peer, identity, number, Q, CONFIG.ticket_memory_kib, CONFIG.ticket_bits)
    return puzzle.make_ticket(next(nonce for nonce in range(1000) if puzzle.is_solved_by(nonce) is is_solved))


def spread_hosts(count):
    """Addresses, each in a block of its own (this machine plays many networks)."""
    return [f"127.1.{number}.7" for number in range(count)]


def make_cases(count):
    """Newcomers with good tickets, each from a block of its own."""
    return [(make_peer(n), make_ticket(make_peer(n)), host) for n, host in enumerate(spread_hosts(count))]


@pytest.fixture
def compute():
    """The verifier."""
    return SlowCompute()


@pytest.fixture
def cut():
    """The keys whose links were cut, one for each time."""
    return []


@pytest.fixture
async def desk(compute, cut):
    """A desk under a virtual clock."""
    return TicketDesk(CONFIG.ticket_terms, look, compute, lambda peer, reason: cut.append(peer))


def first(number):
    """A draw that puts one key first, and the others in order."""
    return lambda ticket: (ticket.peer != make_peer(number), ticket.peer)


def in_order(ticket):
    """A draw that puts keys in order."""
    return ticket.peer


async def test_a_good_ticket_is_taken_and_evaluated_when_it_is_drawn(autojump_clock, desk, compute):
    """It costs nothing before a draw puts it first, then one evaluation, and none for the next draws."""
    peer = make_peer(1)
    ticket = make_ticket(peer)
    assert desk.present(peer, ticket, HOME) is Reply.TAKEN
    assert (compute.count, desk.find_good()) == (0, [])
    for _ in range(3):
        await desk.evaluate_first(in_order, 2)
    assert (compute.count, desk.find_good()) == (1, [ticket])


async def test_of_a_crowd_the_first_are_evaluated(autojump_clock, desk, compute):
    """Fifty good tickets cost two evaluations a draw, whatever their number."""
    cases = make_cases(50)
    assert [desk.present(*case) for case in cases] == [Reply.TAKEN] * 50
    await desk.evaluate_first(first(7), 2)
    assert desk.find_good() == [cases[0][1], cases[7][1]]
    assert compute.count == 2
    await desk.evaluate_first(first(9), 2)
    assert desk.find_good() == [cases[number][1] for number in (0, 7, 9)]


async def test_false_tickets_give_way_to_those_behind_them(autojump_clock, desk):
    """Whoever is drawn with a false ticket is out, and the next one is looked at."""
    for number in range(3):
        desk.present(make_peer(number), make_ticket(make_peer(number), is_solved=False), f"127.1.{number}.7")
    good = make_ticket(make_peer(3))
    desk.present(make_peer(3), good, HOME)
    await desk.evaluate_first(in_order, 1)
    assert desk.find_good() == [good]


@pytest.mark.parametrize(
    ("reply", "change"),
    [
        (Reply.FUTURE, {"round": NEWEST + 1}),
        (Reply.FUTURE, {"round": MAX_NONCE - 1}),
        (Reply.STALE, {"round": NEWEST - 16}),
        (Reply.STALE, {"round": 0}),
        (Reply.UNKNOWN, {"round": 17}),
        (Reply.FOREIGN, {"peer": b"x" * 32}),
        (Reply.IDENTITY, {"identity_nonce": None}),
    ],
)
async def test_what_a_glance_refuses_is_not_evaluated(autojump_clock, desk, compute, reply, change):
    """Another round, another key, no identity work: refused in words, for microseconds."""
    peer = make_peer(1)
    if "identity_nonce" in change:
        change = {"identity_nonce": next(n for n in range(99) if find_identity_nonce(peer, 3, n, 1) is None)}
    assert desk.present(peer, msgspec.structs.replace(make_ticket(peer), **change), HOME) is reply
    assert compute.count == 0


async def test_a_ticket_presented_again_costs_nothing(autojump_clock, desk, compute):
    """Whether good or false, one evaluation is enough; so a replay loads nobody."""
    peer, liar = make_peer(1), make_peer(2)
    good, false = make_ticket(peer), make_ticket(liar, is_solved=False)
    for _ in range(3):
        assert desk.present(peer, good, HOME) is Reply.TAKEN
        desk.present(liar, false, "127.8.8.9")
        await desk.evaluate_first(in_order, 2)
    assert desk.present(liar, false, "127.8.8.9") is Reply.SHUT
    assert compute.count == 2


async def show_false(desk, peer, ticket):
    """Present a false ticket, and have it drawn where it was taken."""
    reply = desk.present(peer, ticket, HOME)
    await desk.evaluate_first(in_order, 1)
    return reply


async def test_the_third_false_ticket_shuts_the_desk(autojump_clock, desk, cut):
    """As many as MAX_FALSE, and the key is cut and not listened to, not even with a good ticket, for a time."""
    liar = make_peer(1)
    false, good = make_ticket(liar, is_solved=False), make_ticket(liar)
    for expected in [Reply.TAKEN] + [Reply.WORK] * (MAX_FALSE - 1):
        assert not cut
        assert await show_false(desk, liar, false) is expected
    assert cut == [liar]
    assert desk.present(liar, good, HOME) is Reply.SHUT
    assert cut == [liar, liar]
    await trio.sleep(SHUT_SECONDS)
    assert desk.present(liar, good, HOME) is Reply.TAKEN


async def test_others_tickets_shut_the_desk_for_whoever_presents_them(autojump_clock, desk, cut):
    """Presenting another key's ticket counts against the presenter, not against the key."""
    liar, victim = make_peer(1), make_peer(2)
    ticket = make_ticket(victim)
    assert [desk.present(liar, ticket, HOME) for _ in range(MAX_FALSE)] == [Reply.FOREIGN] * MAX_FALSE
    assert cut == [liar]
    assert desk.present(victim, ticket, HOME) is Reply.TAKEN


UNLUCKY = pytest.mark.parametrize("number", [NEWEST + 1, 17, 3])
"""A round that we have not sealed, do not know or call old."""


@UNLUCKY
async def test_bad_luck_shuts_no_desk(autojump_clock, desk, cut, number):
    """It is nobody's fault: an honest newcomer comes again, twice as late each time up to a minute, and for hours."""
    peer = make_peer(1)
    early, pause_s = msgspec.structs.replace(make_ticket(peer), round=number), 0.05
    for _ in range(500):
        assert desk.present(peer, early, HOME) not in FALSE
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, PRESENT_S)
    assert not cut
    assert desk.present(peer, make_ticket(peer), HOME) is Reply.TAKEN


@UNLUCKY
async def test_who_shows_too_many_tickets_in_vain_is_cut(autojump_clock, desk, cut, number):
    """Luck is no excuse for more than MAX_VAIN at once; another key's newcomer is not cut."""
    peer = make_peer(1)
    early = msgspec.structs.replace(make_ticket(peer), round=number)
    for _ in range(MAX_VAIN):
        desk.present(peer, early, HOME)
    desk.present(make_peer(2), make_ticket(make_peer(2)), HOME)
    assert not cut
    desk.present(peer, early, HOME)
    assert cut == [peer]


async def test_another_nonce_each_time_is_in_vain(autojump_clock, desk, compute, cut):
    """A key has one ticket that waits; to put others in its place leads to nothing, though each is taken."""
    peer = make_peer(1)
    ticket = make_ticket(peer, is_solved=False)
    tickets = [msgspec.structs.replace(ticket, nonce=ticket.nonce + more) for more in range(MAX_VAIN + 2)]
    assert [desk.present(peer, item, HOME) for item in tickets[:-1]] == [Reply.TAKEN] * (MAX_VAIN + 1)
    assert not cut
    desk.present(peer, tickets[-1], HOME)
    assert (cut, compute.count) == ([peer], 0)


async def test_a_ticket_each_window_is_not_in_vain(autojump_clock, desk, cut):
    """Who gets no place for long comes with a new ticket when the last is too old."""
    peer = make_peer(1)
    for _ in range(3 * MAX_VAIN):
        assert desk.present(peer, make_ticket(peer), HOME) is Reply.TAKEN
        desk.forget(lambda ticket: True)
    assert not cut


async def test_false_tickets_found_by_evaluation_cut_the_link(autojump_clock, desk, cut):
    """Also if each is replaced while it is evaluated; the key need not come again for that."""
    liar = make_peer(1)
    ticket = make_ticket(liar, is_solved=False)
    puzzle = Puzzle(CONFIG.run_id, liar, ticket.identity_nonce, ROUND, Q, CONFIG.ticket_memory_kib, CONFIG.ticket_bits)
    false = [puzzle.make_ticket(nonce) for nonce in range(99) if not puzzle.is_solved_by(nonce)]
    desk.present(liar, false[0], HOME)
    for number in range(1, MAX_FALSE + 1):
        assert not cut
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.evaluate_first, in_order, 1)
            await trio.sleep(EVALUATION_S / 2)
            desk.present(liar, false[number], HOME)
    assert cut == [liar]


async def test_false_tickets_of_long_ago_are_forgotten(autojump_clock, desk, cut):
    """Two now and one in an hour are not three."""
    peer = make_peer(1)
    false = make_ticket(peer, is_solved=False)
    for _ in range(MAX_FALSE - 1):
        await show_false(desk, peer, false)
    await trio.sleep(SHUT_SECONDS + 1)
    await show_false(desk, peer, false)
    assert not cut


async def test_one_evaluation_at_a_time(autojump_clock, desk, compute):
    """Draws that follow each other faster than the verifier works do not pile up: one evaluation's memory is all."""
    for case in make_cases(8):
        desk.present(*case)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(desk.evaluate_first, in_order, 8)
    assert compute.most_at_once == 1
    assert compute.count == len(desk.find_good()) == 8


async def test_a_key_has_one_ticket(autojump_clock, desk):
    """A newer one takes the place of the last, also while that is evaluated."""
    peer = make_peer(1)
    older, newer = make_ticket(peer, number=ROUND - 1), make_ticket(peer)
    desk.present(peer, older, HOME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.evaluate_first, in_order, 1)
        await trio.sleep(EVALUATION_S / 2)
        desk.present(peer, newer, HOME)
    assert desk.find_good() == []
    await desk.evaluate_first(in_order, 1)
    assert desk.find_good() == [newer]


async def test_what_is_void_is_forgotten(autojump_clock, desk):
    """Members, candidates and the banned wait for nothing; nor does a ticket that is too old."""
    for case in make_cases(3):
        desk.present(*case)
    await desk.evaluate_first(in_order, 2)
    desk.forget(lambda ticket: ticket.peer != make_peer(1))
    assert [ticket.peer for ticket in desk.find_good()] == [make_peer(1)]
    assert list(desk._kept) == [make_peer(1)]


async def test_a_network_cannot_keep_others_out(autojump_clock, desk, monkeypatch):
    """Where there is no more room, the network that most wait from gives way; its own newcomers hear so."""
    monkeypatch.setattr(ticket_desk, "MAX_KEPT", 8)
    crowd = [(make_peer(n), make_ticket(make_peer(n)), f"8.8.8.{n}") for n in range(9)]
    assert [desk.present(*case) for case in crowd] == [Reply.TAKEN] * 8 + [Reply.BUSY]
    others = [(make_peer(n), make_ticket(make_peer(n)), "9.9.9.9") for n in range(20, 26)]
    assert [desk.present(*case) for case in others] == [Reply.TAKEN] * 4 + [Reply.BUSY] * 2
    assert list(desk._kept) == [peer for peer, _, _ in (*crowd[:4], *others[:4])]


async def test_tickets_known_to_be_good_give_way_to_nobody(autojump_clock, desk, monkeypatch):
    """Each cost its owner minutes."""
    monkeypatch.setattr(ticket_desk, "MAX_KEPT", 3)
    crowd = [(make_peer(n), make_ticket(make_peer(n)), f"8.8.8.{n}") for n in range(3)]
    for case in crowd:
        desk.present(*case)
    await desk.evaluate_first(in_order, 3)
    assert desk.present(make_peer(9), make_ticket(make_peer(9)), HOME) is Reply.BUSY


async def flood(desk, hosts, seconds, pause_s):
    """Let false tickets of ever new keys come from some addresses, and each draw put them first."""
    number, until = 0, trio.current_time() + seconds
    while trio.current_time() < until:
        for host in hosts:
            number += 1
            desk.present(make_peer(number), make_ticket(make_peer(number), is_solved=False), host)
        await desk.evaluate_first(in_order, 2)
        await trio.sleep(pause_s)


async def test_a_block_has_a_rate(autojump_clock, desk, compute):
    """New keys do not help: one network gets its burst and then one evaluation in four seconds."""
    await flood(desk, [HOME], 60, 0.5)
    assert compute.count == pytest.approx(BLOCK_BURST + 60 * BLOCK_PER_SECOND, abs=1)


async def test_all_blocks_together_have_a_rate(autojump_clock, desk, compute):
    """A flood from forty networks takes no more than the stated share of a core."""
    await flood(desk, spread_hosts(40), 10, 1)
    assert compute.count <= TOTAL_BURST + 11 * TOTAL_PER_SECOND
    assert compute.count >= 10 * TOTAL_PER_SECOND
    assert compute.most_at_once == 1
    assert TOTAL_PER_SECOND * EVALUATION_S < 0.05


async def test_an_honest_newcomer_comes_through_a_flood_of_few_networks(autojump_clock, desk):
    """Ten networks that flood as hard as they can, and are first in every draw, do not keep an eleventh out."""
    peer = make_peer(10**6)
    ticket = make_ticket(peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, desk, spread_hosts(10), 30, 0.5)
        await trio.sleep(15)
        assert desk.present(peer, ticket, HOME) is Reply.TAKEN
    assert desk.find_good() == [ticket]


async def test_memory_is_bounded(autojump_clock, compute, monkeypatch):
    """Keys, blocks and tickets remembered are few, whoever floods."""
    monkeypatch.setattr(ticket_desk, "MAX_TRACKED", 8)
    monkeypatch.setattr(ticket_desk, "MAX_KEPT", 8)
    desk = TicketDesk(CONFIG.ticket_terms, look, compute, lambda peer, reason: None)
    await flood(desk, spread_hosts(60), 60, 1)
    assert len(desk._false) == len(desk._blocks) == len(desk._refuted) == 8
    assert len(desk._kept) <= 8


@pytest.mark.parametrize("reply", Reply)
def test_every_reply_has_words(reply):
    """A newcomer's user reads why."""
    assert len(explain(reply)) > 10


def test_limits_fit_together():
    """A ticket fits its frame, and one block cannot use up what all have together."""
    assert len(encode(JoinTicket(bytes(32), *[MAX_NONCE - 1] * 3))) <= MAX_TICKET_BYTES
    assert BLOCK_BURST < TOTAL_BURST
    assert BLOCK_PER_SECOND < TOTAL_PER_SECOND
    assert TokenBucket(1, 1, 0).take(0)
    assert MAX_KEPT >= 16 * BLOCK_BURST
