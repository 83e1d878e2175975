"""
Views of a recovery in AGGREGATE, some honest members started again: no lie of f cheats removes who has said it.

Every honest member is in AGGREGATE, with all that honest members have said there, or back in COMMIT, where it has said
its AGGREGATE before it was started again or not, and holds all COMMITs again or its own alone. Cheats have given their
messages to any of them, and show any place, and that they hold or lack what suits them.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import pytest
from tests.rules.build import make_position, make_roster

from btard.rules.messages import Holding, Phase, Stage, View
from btard.rules.recovery import decide

COMMIT, AGGREGATE, REVEAL = (Stage(5, 2, phase) for phase in (Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL))


class Honest(NamedTuple):
    """Where an honest member is, if it has said AGGREGATE, which cheats gave it theirs, and if it has all COMMITs."""

    stage: Stage
    has_said: bool
    given: tuple[bool, ...] = ()
    has_all: bool = True


class Lie(NamedTuple):
    """Where a cheat says that it is, and of which members it says that it holds the AGGREGATE."""

    stage: Stage
    held: frozenset[int]


def tell(size: int, held: frozenset[int]) -> tuple[bytes, ...]:
    """The digests of the messages that are held, in roster order."""
    return tuple(bytes([index + 1]) * 32 if index in held else b"" for index in range(size))


def build_view(stage: Stage, *holdings: tuple[Stage, tuple[bytes, ...]]) -> View:
    """The view of a member that has waited long enough, if it is in AGGREGATE or later."""
    shown = tuple(Holding(make_position(item), digests) for item, digests in holdings)
    return View(make_position(stage), stage != COMMIT, shown, (), (), b"", (), False)


def show(size: int, index: int, honest: Sequence[Honest]) -> View:
    """What an honest member shows."""
    member, whole = honest[index], tell(size, frozenset(range(size)))
    if member.stage == COMMIT:
        said = ((AGGREGATE, tell(size, frozenset({index}))),) if member.has_said else ()
        return build_view(COMMIT, (COMMIT, whole if member.has_all else tell(size, frozenset({index}))), *said)
    held = {place for place, other in enumerate(honest) if other.has_said}
    held |= {len(honest) + place for place, is_given in enumerate(member.given) if is_given}
    return build_view(AGGREGATE, (COMMIT, whole), (AGGREGATE, tell(size, frozenset(held))))


def lie(size: int, item: Lie) -> View:
    """What a cheat shows."""
    whole, held = tell(size, frozenset(range(size))), tell(size, item.held)
    if item.stage == REVEAL:
        return build_view(REVEAL, (AGGREGATE, held), (REVEAL, held))
    return build_view(item.stage, (COMMIT, whole), (AGGREGATE, held))


def list_honest(cheats: int) -> list[Honest]:
    """All that an honest member can be in."""
    there = [Honest(AGGREGATE, True, given) for given in product((False, True), repeat=cheats)]
    return [*there, *(Honest(COMMIT, said, (), held) for said, held in product((False, True), repeat=2))]


def list_lies(size: int, cheats: int) -> list[Lie | None]:
    """All that a cheat can say that makes a difference; None is nothing at all."""
    members, friends = size - cheats, frozenset(range(size - cheats, size))
    others = (frozenset[int](), frozenset({0}), frozenset(range(1, members)), frozenset(range(members)))
    stages = (COMMIT, AGGREGATE, REVEAL)
    return [None, *(Lie(at, held | own) for at, held, own in product(stages, others, (frozenset[int](), friends)))]


def explore(size: int) -> Iterator[tuple[tuple[Honest, ...], tuple[Lie | None, ...]]]:
    """All situations in which somebody is in AGGREGATE."""
    cheats = (size - 1) // 2
    for honest in combinations_with_replacement(list_honest(cheats), size - cheats):
        if any(member.stage == AGGREGATE for member in honest):
            for lies in combinations_with_replacement(list_lies(size, cheats), cheats):
                yield honest, lies


@pytest.mark.parametrize(("size", "expected"), [(3, 275), (5, 32_500)])
def test_nobody_is_removed_for_what_it_has_said(size: int, expected: int) -> None:
    """Only whoever has not said AGGREGATE may be, and not by the first recovery, where it is a stage behind.

    Where nobody was started again, cheats that gave theirs to nobody honest leave by the second, whatever they show.
    """
    roster, count = make_roster(size), 0
    for honest, lies in explore(size):
        count += 1
        views = [show(size, index, honest) for index in range(len(honest))]
        views += [lie(size, item) for item in lies if item]
        senders = [*range(len(honest)), *(len(honest) + index for index, item in enumerate(lies) if item)]
        shown = {roster.members[sender]: view for sender, view in zip(senders, views, strict=True)}
        for is_first in (True, False):
            removed = decide(roster, shown, (), len(lies), is_first=is_first).removed
            blamed = {index for index, member in enumerate(honest) if roster.members[index] in removed}
            assert not any(is_first or honest[index].has_said for index in blamed), (honest, lies)
            if not is_first and all(member.stage == AGGREGATE for member in honest):
                silent = {index for index in range(len(lies)) if not any(member.given[index] for member in honest)}
                assert {roster.members[len(honest) + index] for index in silent} <= {*removed}, (honest, lies)
    assert count == expected


def test_whoever_is_behind_alone_is_excused_once() -> None:
    """A newcomer started again in its first attempt is in a COMMIT of the attempt before, which nobody else shows."""
    roster, all_but_one, whole = make_roster(5), tell(5, frozenset(range(4))), tell(5, frozenset(range(5)))
    agree, again = COMMIT._replace(phase=Phase.AGREE), AGGREGATE._replace(attempt=3)
    views = dict.fromkeys(roster.members[:4], build_view(again, (agree, whole), (again, all_but_one)))
    views[roster.members[4]] = build_view(COMMIT, (COMMIT, whole))
    assert not decide(roster, views, (), 2, attempt=3).removed
    assert decide(roster, views, (), 2, is_first=False, attempt=3).removed == (roster.members[4],)
