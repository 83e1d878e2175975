"""Complaints: what did not arrive is published, attested and served; the innocent stay (attacks B2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config, make_part, make_roster, make_transcript

from btard.rules.complaints import Complaint, find_gather_complaints, find_scatter_complaints, find_unattested
from btard.rules.messages import Aggregate, Attest, Phase, Reveal, Stage, Transcript

ROSTER = make_roster(5)
A, B, C, D, E = ROSTER.members
# Part 0 belongs to C, part 1 to A, and so on: the order of parts is not that of the roster.
PARTS = tuple(
    make_part(make_config(), index, peer, 8 * index, 8 * index + 8) for index, peer in enumerate((C, A, B, E, D))
)
AGGREGATES, REVEALS = Stage(3, 1, Phase.AGGREGATE), Stage(3, 1, Phase.REVEAL)


def make_aggregates(missing: dict) -> Transcript:
    """AGGREGATE of everyone, with the complaints in ``missing``."""
    payloads = {peer: Aggregate(b"", 0.0, tuple(missing.get(peer, ())), b"n" * 32) for peer in ROSTER.members}
    return make_transcript(AGGREGATES, payloads)


def make_reveals(missing: dict) -> Transcript:
    """REVEAL of everyone, with the parts called missing."""
    return make_transcript(REVEALS, {peer: Reveal(b"n" * 32, tuple(missing.get(peer, ()))) for peer in ROSTER.members})


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({}, []),
        ({A: [B]}, [Complaint(1, B, A)]),
        ({A: [D, B], C: [B]}, [Complaint(0, B, C), Complaint(1, B, A), Complaint(1, D, A)]),
    ],
    ids=str,
)
def test_aggregators_complain_about_slices_of_their_own_part(missing: dict, complaints: list) -> None:
    """One complaint for each missing slice, in an order that all share."""
    assert find_scatter_complaints(make_aggregates(missing), PARTS) == tuple(complaints)


@pytest.mark.parametrize(
    ("missing", "complaints"),
    [
        ({}, []),
        ({A: [0]}, [Complaint(0, C, A)]),
        ({A: [0, 4], B: [0, 3]}, [Complaint(0, C, A), Complaint(3, E, B), Complaint(4, D, A)]),
        ({C: [0]}, []),  # an aggregator does not lack its own part
        ({C: [0], D: [0]}, [Complaint(0, C, D)]),
    ],
    ids=str,
)
def test_part_that_anyone_lacks_is_complained_about_once(missing: dict, complaints: list) -> None:
    """However many lack a part, its aggregator publishes it once."""
    assert find_gather_complaints(make_reveals(missing), PARTS) == tuple(complaints)


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
    complaints = (Complaint(0, C, A), Complaint(1, A, B))
    attests = make_transcript(Stage(3, 1, Phase.ATTEST), dict(zip(ROSTER.members, map(Attest, held), strict=False)))
    assert find_unattested(complaints, attests, ROSTER) == unattested


@given(st.integers(1, 40), st.data())
def test_thresholds_protect_the_innocent_and_serve_the_honest(size: int, data: st.DataObject) -> None:
    """An honest publisher is attested by all honest members; whoever is attested has an honest holder (attacks B2)."""
    roster = make_roster(size)
    cheats = data.draw(st.integers(0, roster.tolerated()))
    honest_holders = data.draw(st.integers(0, size - cheats))
    answers = [True] * honest_holders + [False] * (size - cheats - honest_holders)
    answers += [data.draw(st.booleans()) for _ in range(cheats)]
    attests = {peer: Attest((answer,)) for peer, answer in zip(roster.members, answers, strict=True)}
    attested = not find_unattested(
        [Complaint(0, roster.members[0], roster.members[-1])],
        make_transcript(Stage(3, 1, Phase.ATTEST), attests),
        roster,
    )
    if honest_holders == size - cheats:
        assert attested
    if attested:
        assert honest_holders >= 1
