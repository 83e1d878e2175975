"""Parts: what a peer gives of the aggregates that it holds, and where those that arrive may lie."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from btard.identity import Identity, PeerId
from btard.net import Loan
from btard.rules.config import RunConfig
from btard.rules.merkle import compute_root
from btard.rules.parts import Part
from btard.swarm.frames import Kind, PartHead
from btard.swarm.gather import Parts
from btard.swarm.lending import compute_send_patience
from btard.swarm.state import as_bytes
from btard.wire import encode

ME, OTHER, THIRD, STRANGER = (Identity(letter * 32).peer_id for letter in (b"m", b"o", b"t", b"s"))
CONFIG = RunConfig(founder=ME.hex(), genesis_size=3, elements=24, chunk_size=8)
MINE, THEIRS, LAST = (
    Part(number, peer, range(number, number + 1), 8 * number, 8 * number + 8, 1.0, 1.0)
    for number, peer in enumerate((ME, OTHER, THIRD))
)
TRUE = torch.arange(24, dtype=torch.float32)
LIE = torch.full((8,), 7.0)


def cut(part: Part) -> Tensor:
    """The true aggregate of a part."""
    return TRUE[part.start : part.stop]


def get(parts: Parts, part: Part) -> Tensor | None:
    """The aggregate, as far as it is held and proven."""
    return parts.get(3, 1, part, compute_root(as_bytes(cut(part)), 4 * CONFIG.chunk_size))


def begin_to_send(parts: Parts, peer: PeerId, part: Part, attempt: int = 1) -> memoryview:
    """Return the memory that the link to a peer is given for a part."""
    target = parts.sink(peer, encode(PartHead(3, attempt, part.index)), 32)
    assert target is not None
    return target


def send(parts: Parts, peer: PeerId, part: Part, values: Tensor) -> memoryview:
    """Let a part arrive whole; return the memory it lies in."""
    target = begin_to_send(parts, peer, part)
    target[:] = as_bytes(values)
    parts.done(peer, encode(PartHead(3, 1, part.index)), target)
    return target


@pytest.fixture
def sent() -> list[tuple[PeerId, int]]:
    """Whom what was sent."""
    return []


@pytest.fixture
def parts(sent: list[tuple[PeerId, int]]) -> Parts:
    """The parts of a peer in attempt 1 of round 3, whose own it has reduced."""
    hub: Any = SimpleNamespace(bulk={}, serve={}, offer_bulk=lambda peer, kind, *_: sent.append((peer, kind)))
    parts = Parts(CONFIG, hub, lambda: None, lambda peer: peer in (ME, OTHER, THIRD))
    parts.begin_attempt(3, 1, 3)
    parts.expect(3, 1, (MINE, THEIRS, LAST))
    return parts


def merge(parts: Parts) -> Tensor:
    """Put together what is held."""
    pieces = [values for part in (MINE, THEIRS, LAST) if (values := get(parts, part)) is not None]
    assert len(pieces) == 3
    return parts.merge(pieces)


async def test_what_is_lent_is_taken_back_when_the_second_round_after_it_begins() -> None:
    """Whoever has not read a part by then, offered or asked for, reads no more of it; that of the next round stays."""
    lent: list[Loan] = []
    hub: Any = SimpleNamespace(bulk={}, serve={}, offer_bulk=lambda peer, kind, head, loan: lent.append(loan))
    parts = Parts(CONFIG, hub, lambda: None, lambda _peer: True)
    for number in (3, 4):
        parts.begin_attempt(number, 1, 3)
        parts.keep_own(number, 1, MINE, cut(MINE))
        parts.send(number, 1, MINE, [OTHER])
        _, loan = await hub.serve[Kind.PULL_PART](OTHER, encode(PartHead(number, 1, MINE.index)))
        lent.append(loan)
    parts.begin_attempt(4, 2, 3)
    assert [loan.scope.cancel_called for loan in lent] == [False] * 4
    parts.begin_attempt(5, 1, 3)
    assert [loan.scope.cancel_called for loan in lent] == [True, True, False, False]


async def test_who_has_much_to_send_lends_for_longer_until_the_round_is_over() -> None:
    """What is asked for is lent for as long as what is offered."""
    lent: list[Loan] = []
    hub: Any = SimpleNamespace(bulk={}, serve={}, offer_bulk=lambda peer, kind, head, loan: lent.append(loan))
    parts = Parts(CONFIG, hub, lambda: None, lambda _peer: True)
    parts.begin_attempt(3, 1, 3)
    parts.keep_own(3, 1, MINE, cut(MINE))
    usual_s = compute_send_patience(CONFIG)

    async def lend() -> set[float]:
        parts.send(3, 1, MINE, [OTHER])
        _, loan = await hub.serve[Kind.PULL_PART](OTHER, encode(PartHead(3, 1, MINE.index)))
        return {loan.scope.relative_deadline, lent[-1].scope.relative_deadline}

    assert await lend() == {usual_s}
    parts.lend_longer(3 * usual_s)
    parts.lend_longer(usual_s)
    assert await lend() == {3 * usual_s}
    parts.begin_attempt(4, 1, 3)
    assert await lend() == {usual_s}


def assert_nothing_is_copied(parts: Parts) -> None:
    """The whole is true, and the parts lie in it."""
    whole = merge(parts)
    assert torch.equal(whole, TRUE)
    held = [get(parts, part) for part in (MINE, THEIRS, LAST)]
    assert [values.data_ptr() - whole.data_ptr() for values in held if values is not None] == [0, 32, 64]


def test_parts_arrive_where_they_belong(parts: Parts) -> None:
    """When every part comes from its aggregator, the whole is there with the last of them, and nothing is copied."""
    parts.keep_own(3, 1, MINE, cut(MINE))
    for part in (LAST, THEIRS):
        send(parts, part.aggregator, part, cut(part))
    assert_nothing_is_copied(parts)


def test_nobody_but_its_aggregator_takes_the_place_of_a_part(parts: Parts) -> None:
    """A member that sends another's part, and one that sends its own for the next attempt, stand in nobody's way."""
    begin_to_send(parts, OTHER, LAST)[:] = as_bytes(LIE)
    begin_to_send(parts, OTHER, THEIRS, attempt=2)[:] = as_bytes(LIE)
    parts.keep_own(3, 1, MINE, cut(MINE))
    for part in (LAST, THEIRS):
        send(parts, part.aggregator, part, cut(part))
    assert_nothing_is_copied(parts)


def test_nothing_written_later_reaches_what_is_proven(parts: Parts) -> None:
    """An aggregator that holds one transfer back on a second link, until another proved, spoils nothing."""
    parts.keep_own(3, 1, MINE, cut(MINE))
    send(parts, THIRD, LAST, cut(LAST))
    held_back = begin_to_send(parts, OTHER, THEIRS)
    send(parts, OTHER, THEIRS, cut(THEIRS))
    whole = merge(parts)
    held_back[:] = as_bytes(LIE)
    parts.done(OTHER, encode(PartHead(3, 1, THEIRS.index)), held_back)
    assert torch.equal(whole, TRUE)
    assert torch.equal(merge(parts), TRUE)


def test_a_place_is_given_once(parts: Parts) -> None:
    """A lie in the place of a part is not read, and the truth, which another passes on, is not written over it."""
    parts.keep_own(3, 1, MINE, cut(MINE))
    send(parts, THIRD, LAST, cut(LAST))
    place = send(parts, OTHER, THEIRS, LIE)
    assert get(parts, THEIRS) is None
    send(parts, THIRD, THEIRS, cut(THEIRS))
    assert torch.equal(merge(parts), TRUE)
    assert bytes(place) == bytes(as_bytes(LIE))


def test_one_worthless_part_is_the_last_of_its_sender(parts: Parts) -> None:
    """Whoever sent something else than was committed to is not heard on that part again, others and others' are."""
    send(parts, OTHER, THEIRS, LIE)
    assert get(parts, THEIRS) is None
    assert parts.sink(OTHER, encode(PartHead(3, 1, THEIRS.index)), 32) is None
    send(parts, OTHER, LAST, cut(LAST))
    send(parts, THIRD, THEIRS, cut(THEIRS))
    assert get(parts, LAST) is not None
    assert get(parts, THEIRS) is not None


def test_what_is_proven_is_not_received_again(parts: Parts) -> None:
    """Nobody has members wake for what they hold."""
    send(parts, OTHER, THEIRS, cut(THEIRS))
    assert get(parts, THEIRS) is not None
    for sender in (OTHER, THIRD):
        assert parts.sink(sender, encode(PartHead(3, 1, THEIRS.index)), 32) is None


def test_what_counts_as_zeros_leaves_the_committed_bytes_alone(parts: Parts) -> None:
    """Values that do not count are replaced in the whole, and are served as their aggregator committed to them."""
    parts.keep_own(3, 1, MINE, cut(MINE))
    for part in (LAST, THEIRS):
        send(parts, part.aggregator, part, cut(part))
    counted = [cut(MINE), torch.zeros(8), cut(LAST)]
    assert torch.equal(parts.merge(counted), torch.cat(counted))
    assert torch.equal(merge(parts), TRUE)


async def test_members_alone_are_served(parts: Parts) -> None:
    """A member gets the aggregate that it asks for, a stranger nothing."""
    parts.keep_own(3, 1, MINE, cut(MINE))
    request = encode(PartHead(3, 1, MINE.index))
    head, loan = await parts._serve(OTHER, request)
    assert loan is not None
    assert (head, bytes(loan.payload)) == (request, bytes(as_bytes(cut(MINE))))
    assert await parts._serve(STRANGER, request) == (b"", None)


@pytest.mark.parametrize("value", [0.0, -1e30, math.nan, math.inf, -3e38])
@pytest.mark.parametrize("sender", [ME, OTHER])
def test_parts_are_read_as_they_count(value: float, sender: PeerId, parts: Parts) -> None:
    """Ours or another's: one value that does not count has the part be zeros, and it is served as it is."""
    part, values = (MINE if sender is ME else THEIRS), torch.ones(8)
    values[5] = value
    if sender is ME:
        parts.keep_own(3, 1, part, values)
    else:
        send(parts, sender, part, values)
    held = parts.get(3, 1, part, compute_root(as_bytes(values), 4 * CONFIG.chunk_size))
    assert held is not None and torch.equal(held.nan_to_num(), values.nan_to_num())
    counts = abs(value) <= 1e30
    assert torch.equal(parts.read(3, 1, part), values if counts else torch.zeros(8))
