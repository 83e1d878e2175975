"""The desk for join tickets: honest newcomers are served, floods wait outside, and a false ticket costs little."""

import msgspec
import pytest
import trio
import trio.lowlevel
from tests.rules.build import make_config

from btard.dht.limits import TokenBucket
from btard.identity import JoinTicket, PeerId, Puzzle
from btard.identity.work import MAX_NONCE, find_identity_nonce
from btard.swarm.joining import ticket_desk
from btard.swarm.joining.ticket_desk import (
    BLOCK_BURST,
    BLOCK_PER_SECOND,
    FALSE,
    MAX_FALSE,
    MAX_TICKET_BYTES,
    MAX_WAITING,
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


def look(number):
    """What a member knows: the draws of rounds 20 to 30."""
    return Outlook(NEWEST, Q if 20 <= number <= NEWEST else None, CONFIG.ticket_bits)


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
async def desk(compute):
    """A desk under a virtual clock."""
    return TicketDesk(CONFIG.ticket_terms, look, compute)


async def present_all(desk, cases):
    """Present (peer, ticket, host) all at once; return the replies in order."""
    replies = {}

    async def present(index, case):
        replies[index] = await desk.present(*case)

    async with trio.open_nursery() as nursery:
        for index, case in enumerate(cases):
            nursery.start_soon(present, index, case)
    return [replies[index] for index in range(len(cases))]


async def test_a_good_ticket_is_taken(autojump_clock, desk, compute):
    """One evaluation, and the newcomer hears that its ticket is good."""
    peer = make_peer(1)
    assert await desk.present(peer, make_ticket(peer), HOME) is Reply.TAKEN
    assert compute.count == 1


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
    assert await desk.present(peer, msgspec.structs.replace(make_ticket(peer), **change), HOME) is reply
    assert compute.count == 0


async def test_a_ticket_presented_again_costs_nothing(autojump_clock, desk, compute):
    """Whether good or false, one evaluation is enough; so a replay loads nobody."""
    peer, liar = make_peer(1), make_peer(2)
    good, false = make_ticket(peer), make_ticket(liar, is_solved=False)
    assert [await desk.present(peer, good, HOME) for _ in range(50)] == [Reply.TAKEN] * 50
    assert [await desk.present(liar, false, "127.8.8.9") for _ in range(2)] == [Reply.WORK] * 2
    assert compute.count == 2


async def test_the_third_false_ticket_shuts_the_desk(autojump_clock, desk, compute):
    """As many as MAX_FALSE, and the key is not listened to: not even with a good ticket, until the time is over."""
    liar = make_peer(1)
    false, good = make_ticket(liar, is_solved=False), make_ticket(liar)
    for _ in range(MAX_FALSE):
        assert not desk.is_shut(liar)
        assert await desk.present(liar, false, HOME) is Reply.WORK
    assert desk.is_shut(liar)
    assert await desk.present(liar, good, HOME) is Reply.SHUT
    await trio.sleep(SHUT_SECONDS)
    assert await desk.present(liar, good, HOME) is Reply.TAKEN


async def test_others_tickets_shut_the_desk_for_whoever_presents_them(autojump_clock, desk):
    """Presenting another key's ticket counts against the presenter, not against the key."""
    liar, victim = make_peer(1), make_peer(2)
    ticket = make_ticket(victim)
    assert [await desk.present(liar, ticket, HOME) for _ in range(MAX_FALSE)] == [Reply.FOREIGN] * MAX_FALSE
    assert desk.is_shut(liar)
    assert await desk.present(victim, ticket, HOME) is Reply.TAKEN


@pytest.mark.parametrize("number", [NEWEST + 1, 17, 3])
async def test_bad_luck_shuts_no_desk(autojump_clock, desk, number):
    """A round that we have not sealed, do not know or call old is nobody's fault, however often it comes."""
    peer = make_peer(1)
    early = msgspec.structs.replace(make_ticket(peer), round=number)
    replies = [await desk.present(peer, early, HOME) for _ in range(100)]
    assert FALSE.isdisjoint(replies)
    assert not desk.is_shut(peer)


async def test_false_tickets_of_long_ago_are_forgotten(autojump_clock, desk):
    """Two now and one in an hour are not three."""
    peer = make_peer(1)
    false = make_ticket(peer, is_solved=False)
    for _ in range(MAX_FALSE - 1):
        await desk.present(peer, false, HOME)
    await trio.sleep(SHUT_SECONDS + 1)
    await desk.present(peer, false, HOME)
    assert not desk.is_shut(peer)


async def test_one_evaluation_at_a_time(autojump_clock, desk, compute):
    """Sixteen tickets from sixteen blocks take their turns: the memory of one evaluation is all we need."""
    begun = trio.current_time()
    assert await present_all(desk, make_cases(16)) == [Reply.TAKEN] * 16
    assert compute.most_at_once == 1
    assert trio.current_time() - begun == pytest.approx(16 * EVALUATION_S)


async def test_a_full_queue_refuses_at_once(autojump_clock, desk, compute):
    """The seventeenth hears that too many are waiting, and is welcome a little later."""
    cases = make_cases(MAX_WAITING + 8)
    replies = await present_all(desk, cases)
    assert sorted(replies) == [Reply.TAKEN] * MAX_WAITING + [Reply.BUSY] * 8
    assert compute.count == MAX_WAITING
    await trio.sleep(8)
    late = cases[replies.index(Reply.BUSY)]
    assert await desk.present(*late) is Reply.TAKEN


async def test_a_verifier_that_is_held_up_lets_no_queue_grow(autojump_clock, desk, compute):
    """However slow an evaluation is, sixteen wait and not one more; the rest hear so at once."""
    compute.seconds = 1000
    cases = make_cases(MAX_WAITING + 20)
    async with trio.open_nursery() as nursery:
        for case in cases[:MAX_WAITING]:
            nursery.start_soon(desk.present, *case)
        await trio.sleep(10)
        assert [await desk.present(*case) for case in cases[MAX_WAITING:]] == [Reply.BUSY] * 20
        nursery.cancel_scope.cancel()


async def test_one_block_waits_once(autojump_clock, desk, compute):
    """However many keys and addresses one network has, it takes one place of the queue."""
    crowd = [(make_peer(n), make_ticket(make_peer(n)), f"127.9.9.{n}") for n in range(1, 60)]
    outsider = (make_peer(99), make_ticket(make_peer(99)), "127.8.8.1")
    *replies, other = await present_all(desk, [*crowd, outsider])
    assert sorted(replies) == [Reply.TAKEN] + [Reply.OFTEN] * 58
    assert other is Reply.TAKEN


async def hammer(desk, host, number, seconds, pause_s):
    """Present false tickets of ever new keys from one address; return how many were evaluated."""
    evaluated, until = 0, trio.current_time() + seconds
    while trio.current_time() < until:
        number += 1
        evaluated += (
            await desk.present(make_peer(number), make_ticket(make_peer(number), is_solved=False), host) is Reply.WORK
        )
        await trio.sleep(pause_s)
    return evaluated


async def test_a_block_has_a_rate(autojump_clock, desk):
    """New keys do not help: one network gets its burst and then one evaluation in four seconds."""
    evaluated = await hammer(desk, HOME, 0, 60, 0.5)
    assert evaluated == pytest.approx(BLOCK_BURST + 60 * BLOCK_PER_SECOND, abs=1)


async def test_all_blocks_together_have_a_rate(autojump_clock, desk, compute):
    """A flood from forty networks takes no more than the stated share of a core."""
    async with trio.open_nursery() as nursery:
        for index, host in enumerate(spread_hosts(40)):
            nursery.start_soon(hammer, desk, host, 1000 * index, 10, 1)
    assert compute.count <= TOTAL_BURST + 11 * TOTAL_PER_SECOND
    assert compute.count >= 10 * TOTAL_PER_SECOND
    assert compute.most_at_once == 1
    assert TOTAL_PER_SECOND * EVALUATION_S < 0.05


async def test_an_honest_newcomer_comes_through_a_flood_of_few_networks(autojump_clock, desk):
    """Ten networks that flood as hard as they can do not keep an eleventh out."""
    peer = make_peer(10**6)
    ticket = make_ticket(peer)
    async with trio.open_nursery() as nursery:
        for index, host in enumerate(spread_hosts(10)):
            nursery.start_soon(hammer, desk, host, 1000 * index, 30, 0.5)
        await trio.sleep(15)
        assert await desk.present(peer, ticket, HOME) is Reply.TAKEN
        nursery.cancel_scope.cancel()


async def test_whoever_leaves_the_queue_makes_room(autojump_clock, desk, compute):
    """A link that ends while its ticket waits leaves nothing behind."""
    async with trio.open_nursery() as nursery:
        for case in make_cases(MAX_WAITING):
            nursery.start_soon(desk.present, *case)
        await trio.sleep(EVALUATION_S / 2)
        nursery.cancel_scope.cancel()
    await trio.sleep(4)
    peer, host = make_peer(77), spread_hosts(MAX_WAITING)[3]
    assert await desk.present(peer, make_ticket(peer), host) is Reply.TAKEN
    assert compute.count == 2


async def test_memory_is_bounded(autojump_clock, compute, monkeypatch):
    """Keys, blocks and tickets remembered are few, whoever floods."""
    monkeypatch.setattr(ticket_desk, "MAX_TRACKED", 8)
    monkeypatch.setattr(ticket_desk, "MAX_KNOWN", 8)
    desk = TicketDesk(CONFIG.ticket_terms, look, compute)
    for number, host in enumerate(spread_hosts(60)):
        await trio.sleep(1)
        assert (
            await desk.present(make_peer(number), make_ticket(make_peer(number), is_solved=False), host) is Reply.WORK
        )
    assert len(desk._false) == len(desk._blocks) == len(desk._known) == 8
    assert desk._waiting == set()


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
