"""Complaints: what did not arrive is published, attested and served; the innocent stay (attacks B1, B2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config, make_part, make_roster, make_transcript

from btard.rules.complaints import (
    Complaint,
    find_check_complaints,
    find_gather_complaints,
    find_scatter_complaints,
    find_unattested,
    find_undecided,
)
from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Aggregate, Attest, Check, Phase, Reveal, Stage, Transcript, Unrelayed
from btard.rules.relays import Relays

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
# Part 0 belongs to C, part 1 to A, and so on: the order of parts is not that of the roster.
PARTS = tuple(
    make_part(make_config(), index, peer, 8 * index, 8 * index + 8) for index, peer in enumerate((C, A, B, E, D))
)
AGGREGATES, REVEALS = Stage(3, 1, Phase.AGGREGATE), Stage(3, 1, Phase.REVEAL)
UNMARKED = Relays(b"q" * 32, ROSTER, Marks())
# C is marked with both: only D and E can be between A and B, and D is drawn.
MARKED = Relays(b"q" * 32, ROSTER, Marks().with_pairs([make_pair(A, B), make_pair(C, A), make_pair(E, B)]))
RELAY = D


def make_aggregates(missing: dict, unrelayed: dict | None = None) -> Transcript:
    """AGGREGATE of everyone, with the complaints in ``missing`` and the failed errands in ``unrelayed``."""
    failed = {peer: tuple(Unrelayed(*pair) for pair in pairs) for peer, pairs in (unrelayed or {}).items()}
    payloads = {
        peer: Aggregate(b"", 0.0, tuple(missing.get(peer, ())), b"n" * 32, failed.get(peer, ()))
        for peer in ROSTER.members
    }
    return make_transcript(AGGREGATES, payloads)


def make_reveals(missing: dict) -> Transcript:
    """REVEAL of everyone, with the parts called missing."""
    return make_transcript(REVEALS, {peer: Reveal(b"n" * 32, tuple(missing.get(peer, ()))) for peer in ROSTER.members})


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({}, []),
        ({A: [B]}, [Complaint(1, B, B, A)]),
        ({A: [D, B], C: [B]}, [Complaint(0, B, B, C), Complaint(1, B, B, A), Complaint(1, D, D, A)]),
    ],
    ids=str,
)
def test_aggregators_complain_about_slices_of_their_own_part(missing: dict, complaints: list) -> None:
    """One complaint for each missing slice, in an order that all share."""
    assert find_scatter_complaints(make_aggregates(missing), PARTS, UNMARKED) == tuple(complaints)


def test_only_one_member_is_between_two_that_share_no_other() -> None:
    """The marks above leave A and B a single relay."""
    assert MARKED.between(A, B) == RELAY


@pytest.mark.parametrize(
    ("missing", "unrelayed", "complaints"),
    [
        ({A: [B]}, {}, [Complaint(1, B, RELAY, A)]),  # the relay does not say that it lacks anything
        ({A: [B]}, {RELAY: [(A, B)]}, [Complaint(1, B, B, RELAY)]),
        ({}, {RELAY: [(A, B)]}, [Complaint(1, B, B, RELAY)]),
        ({A: [B]}, {C: [(A, B)]}, [Complaint(1, B, RELAY, A)]),  # C is not their relay
        ({A: [B, D]}, {RELAY: [(B, A)]}, [Complaint(1, B, RELAY, A), Complaint(1, D, D, A), Complaint(2, A, A, RELAY)]),
        ({}, {RELAY: [(A, E)]}, []),  # A and E are not marked
    ],
    ids=str,
)
def test_members_of_a_marked_pair_complain_about_hops(missing: dict, unrelayed: dict, complaints: list) -> None:
    """A complaint about a marked partner is about the relay, unless the relay lacks it too and complains itself."""
    aggregates = make_aggregates(missing, unrelayed)
    assert find_scatter_complaints(aggregates, PARTS, MARKED) == tuple(complaints)


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({}, []),
        ({A: [0]}, [Complaint(0, C, C, A)]),
        ({C: [0]}, []),  # an aggregator does not lack its own part
        ({C: [0], D: [0]}, [Complaint(0, C, C, D)]),
        ({A: [0, 4], B: [0]}, [Complaint(0, C, C, A), Complaint(0, C, C, B), Complaint(4, D, D, A)]),
    ],
    ids=str,
)
def test_everyone_who_lacks_a_part_complains(missing: dict, complaints: list) -> None:
    """Each complaint names its own pair: none of them may hide behind another's."""
    assert find_gather_complaints(make_reveals(missing), PARTS, UNMARKED) == tuple(complaints)


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({B: [1]}, [Complaint(1, A, RELAY, B)]),
        ({B: [1], RELAY: [1]}, [Complaint(1, A, A, RELAY)]),
        ({B: [1], E: [1]}, [Complaint(1, A, RELAY, B), Complaint(1, A, A, E)]),
    ],
    ids=str,
)
def test_parts_of_marked_partners_are_asked_of_the_relay(missing: dict, complaints: list) -> None:
    """At gather too a complaint about a marked partner is about the relay, unless that lacks the part itself."""
    assert set(find_gather_complaints(make_reveals(missing), PARTS, MARKED)) == set(complaints)


def make_checks(missing: dict) -> Transcript:
    """CHECK of everyone, with the parts that nobody gave it."""
    checks = {peer: Check((), b"n" * 32, tuple(missing.get(peer, ()))) for peer in ROSTER.members}
    return make_transcript(Stage(3, 1, Phase.CHECK), checks)


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({}, []),
        ({A: [0, 4], B: [0]}, [Complaint(4, D, D, A), Complaint(0, C, C, B)]),  # A is marked with C, B is not
        ({B: [1]}, [Complaint(1, A, RELAY, B)]),  # the relay said that it has it, and so did all others
        ({B: [1], RELAY: [1]}, [Complaint(1, A, A, RELAY)]),
        ({B: [1], E: [1]}, [Complaint(1, A, A, E)]),  # the relay may have lost it as E did
    ],
    ids=str,
)
def test_in_check_relays_are_complained_about_only_where_nobody_else_can_be(missing: dict, complaints: list) -> None:
    """One complaint of a member that needs no relay stands for those of all that do."""
    assert set(find_check_complaints(make_checks(missing), PARTS, MARKED)) == set(complaints)


@given(st.dictionaries(st.sampled_from(ROSTER.members), st.sets(st.integers(0, 4), min_size=1), max_size=5))
def test_every_part_that_lacks_in_check_marks_a_new_pair_or_removes(missing: dict) -> None:
    """Nobody ends an attempt for nothing: each part gives a complaint, and none is about a marked pair."""
    own = {item.aggregator: item.index for item in PARTS}
    lacking = {peer: sorted(parts - {own[peer]}) for peer, parts in missing.items()}
    found = find_check_complaints(make_checks(lacking), PARTS, MARKED)
    assert {item.part for item in found} == {part for parts in lacking.values() for part in parts}
    assert not any(MARKED.marks.is_marked(item.accused, item.complainer) for item in found)


@pytest.mark.parametrize(
    ("held", "unattested"),
    [
        ([(True, True)] * 5, ()),
        ([(True, False)] * 5, (1,)),
        ([(True, False)] * 3 + [(False, True)] * 2, (1,)),  # three of five hold the first, two the second
        ([(True, True)] * 2 + [(False, False)] * 3, (0, 1)),
        ([(True, True)] * 3, ()),  # absent attestations count as no
        ([(True, True)] * 2, (0, 1)),
    ],
    ids=str,
)
def test_data_that_not_even_half_attest_was_never_published(held: list, unattested: tuple) -> None:
    """Only more than half of the roster attests that the accused published."""
    complaints = (Complaint(0, C, C, A), Complaint(1, A, A, B))
    attests = make_transcript(Stage(3, 1, Phase.ATTEST), dict(zip(ROSTER.members, map(Attest, held), strict=False)))
    assert find_unattested(complaints, attests, ROSTER) == unattested


def test_what_could_be_had_marks_the_pair() -> None:
    """Complaints that are attested mark complainer and accused; the others remove the accused and mark nobody."""
    complaints = (Complaint(0, C, C, A), Complaint(1, A, E, B))
    assert find_undecided(complaints, (0,)) == {make_pair(E, B)}
    assert find_undecided(complaints, (0, 1)) == frozenset()


@given(st.integers(1, 40), st.data())
def test_thresholds_protect_the_innocent_and_serve_the_honest(size: int, data: st.DataObject) -> None:
    """An honest publisher is attested by all honest members; whoever is attested has an honest holder (attacks B2)."""
    roster = make_roster(size)
    cheats = data.draw(st.integers(0, roster.tolerated()))
    honest_holders = data.draw(st.integers(0, size - cheats))
    answers = [True] * honest_holders + [False] * (size - cheats - honest_holders)
    answers += [data.draw(st.booleans()) for _ in range(cheats)]
    attests = {peer: Attest((answer,)) for peer, answer in zip(roster.members, answers, strict=True)}
    accused, complainer = roster.members[0], roster.members[-1]
    attested = not find_unattested(
        [Complaint(0, accused, accused, complainer)],
        make_transcript(Stage(3, 1, Phase.ATTEST), attests),
        roster,
    )
    if honest_holders == size - cheats:
        assert attested
    if attested:
        assert honest_holders >= 1
