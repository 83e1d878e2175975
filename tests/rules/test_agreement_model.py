"""Bounded model checking of the recovery rules, and that the checker finds each rule that is broken (attacks A5)."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, product

import pytest
from tests.rules.agreement_model import BALLOT, Rules, explore_extraction, explore_recovery
from tests.rules.build import make_message, make_roster

from btard.identity import PeerId
from btard.rules import agreement
from btard.rules.agreement import can_settle, find_conclusion, find_elected, find_restart
from btard.rules.dolev_strong import Extraction, compute_end, find_split, find_step, find_vector
from btard.rules.messages import Ballot, Conclude, Phase, SignedMessage, Stage
from btard.rules.recovery import find_certificate
from btard.rules.roster import Roster


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_honest_members_extract_the_same(size: int) -> None:
    """Whatever is shown to whom in which order, all know the same value of a sender, or that it has none."""
    found = explore_extraction(size)
    print(f"Dolev–Strong, n={size}: {found.states} states")  # noqa: T201
    assert found.disagreement is None
    assert found.states > 100


@pytest.mark.parametrize("size", [3, 4, 5])
def test_certificate_and_fallback_decide_the_same(size: int) -> None:
    """Every certificate that anybody can hold, and what every honest member concludes, are one decision."""
    found = explore_recovery(size)
    print(f"recovery, n={size}: {found.states} states")  # noqa: T201
    assert found.disagreement is None
    assert found.states >= 9 * 6


# --- the checker can fail ---


def take_without_count(
    taken: Extraction, roster: Roster, tolerated: int, step: int, sender: PeerId, signers: frozenset[PeerId]
) -> bool:
    """Count no countersignatures: a late value counts as long as its sender signed it."""
    return step <= tolerated + 1 and len(taken.values) < 2


def take_one_short(
    taken: Extraction, roster: Roster, tolerated: int, step: int, sender: PeerId, signers: frozenset[PeerId]
) -> bool:
    """Be content with one signature less than there are steps."""
    return taken.takes(roster, tolerated, step - 1, sender, signers) and step <= tolerated + 1


def take_one_value(
    taken: Extraction, roster: Roster, tolerated: int, step: int, sender: PeerId, signers: frozenset[PeerId]
) -> bool:
    """Pass on only the first value of a sender."""
    return taken.takes(roster, tolerated, step, sender, signers) and not taken.values


@pytest.mark.parametrize("takes", [take_without_count, take_one_short, take_one_value], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("size", [3, 5])
def test_broken_extraction_is_found(size: int, takes) -> None:
    """Without the count of countersignatures, or the second value, honest members end with different values."""
    assert explore_extraction(size, takes).disagreement is not None


def certify_by_majority(roster: Roster, ballots: Mapping[PeerId, SignedMessage]) -> tuple | None:
    """Take equal ballots of more than half for a certificate, whoever is missing."""
    counts = Counter(message.payload for message in ballots.values())
    ballot, count = counts.most_common(1)[0]
    return (ballot.silent, ballot.views, ()) if count >= roster.majority else None


BROKEN = {
    "certificate and fallback decide independently": Rules(find_elected=lambda roster, vector: None),
    "an elected ballot removes who did not vote": Rules(removes_when_elected=True),
    "ballots of a mere majority are a certificate": Rules(find_certificate=certify_by_majority),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_recovery_is_found(name: str) -> None:
    """Each rule is needed: without it two honest members can decide differently."""
    assert explore_recovery(5, BROKEN[name]).disagreement is not None


# --- messages later than Δ, and nobody who signs twice ---


def explore_lateness(size: int, settles=can_settle, certifies=find_certificate) -> tuple[int, object | None]:
    """Return the states, and a certificate beside another conclusion of a majority, where anything may come late.

    Everyone casts one of a few ballots and concludes once, from any vector with its own ballot in it.
    """
    roster = make_roster(size)
    minority = size - roster.majority
    silences = [silent for count in range(minority + 1) for silent in combinations(roster.members, count)]
    states = 0
    for choice in product(silences, repeat=size):
        cast = {peer: Ballot(silent, bytes([len(silent)]) * 32) for peer, silent in zip(roster.members, choice)}  # noqa: B905
        if any(peer in cast[peer].silent for peer in cast):
            continue
        found = certifies(roster, {peer: make_message(peer, BALLOT, ballot) for peer, ballot in cast.items()})
        if found is None:
            continue
        states += 1
        against = 0
        for peer in roster.members:
            others = [other for other in roster.members if other != peer]
            vectors = ({peer, *some} for count in range(size) for some in combinations(others, count))
            against += any(_concludes_otherwise(roster, cast, vector, peer, found, settles) for vector in vectors)
        if against >= roster.majority:
            return states, (cast, found)
    return states, None


def _concludes_otherwise(roster, cast, members, peer, found, settles) -> bool:
    vector = {member: cast[member] for member in members}
    elected = find_elected(roster, vector)
    is_other = elected is None or (elected.silent, elected.views) != found[:2]
    return is_other and settles(roster, vector, cast[peer])


@pytest.mark.parametrize("size", [3, 5])
def test_lateness_alone_never_yields_two_decisions(size: int) -> None:
    """If nobody signs twice, no majority concludes against a certificate, however late messages are."""
    states, disagreement = explore_lateness(size)
    print(f"lateness, n={size}: {states} states")  # noqa: T201
    assert disagreement is None
    assert states > 1


def test_lateness_is_dangerous_where_members_conclude_against_their_votes() -> None:
    """Without looking at one's own vote a majority that missed some ballots concludes something else."""

    def settle_by_majority(roster: Roster, vector: Mapping[PeerId, Ballot], own: Ballot | None) -> bool:
        return len(vector) >= roster.majority

    assert explore_lateness(5, settle_by_majority)[1] is not None


# --- single rules ---


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sent", [4.0, 4.5, 5.9, 6.0, 7.9, 8.0])
def test_what_is_passed_on_in_a_step_arrives_in_the_next(sent: float, delay: float, skew: float) -> None:
    """Members enter within Δ of each other and messages take at most Δ, so a step of 2Δ is long enough."""
    taken = find_step(sent, 1.0)
    assert find_step(sent + delay + skew, 1.0) <= taken + 1
    assert find_step(sent, 1.0) == find_step(2 * sent, 2.0)


def test_steps_end_with_the_last_that_counts() -> None:
    """The last step is f+1, and at least the second."""
    assert [find_step(compute_end(tolerated, 0.5), 0.5) for tolerated in (0, 1, 2, 7)] == [2, 2, 3, 8]


def test_vector_and_split_tell_one_value_from_two() -> None:
    """Who showed one value has a place, who showed two is named, who showed none is neither."""
    one, two, three = make_roster(3).members
    taken = {two: Extraction((b"a", b"b")), one: Extraction((b"a",)), three: Extraction()}
    assert find_vector(taken) == {one: b"a"}
    assert find_split(taken) == (two,)


def test_unvoted_are_those_whose_view_an_honest_member_holds() -> None:
    """F voters could all lie; f+1 cannot."""
    roster = make_roster(5)
    members = roster.members
    vector = {peer: Ballot((members[4],), bytes([place]) * 32) for place, peer in enumerate(members[:4])}
    assert agreement.find_unvoted(roster, vector, (), 2) == ()
    vector |= {peer: Ballot((), b"x" * 32) for peer in members[:2]}
    assert agreement.find_unvoted(roster, vector, (), 2) == ()
    vector[members[2]] = Ballot((), b"y" * 32)
    assert agreement.find_unvoted(roster, vector, (), 2) == (members[4],)
    assert agreement.find_unvoted(roster, vector, (members[4],), 2) == ()


def test_conclusion_is_that_of_more_than_half() -> None:
    """Three equal ones of five settle; two do not, nor do strangers count."""
    roster, stage = make_roster(5), Stage(0, 2, Phase.CONCLUDE)
    one, two = Conclude(b"1" * 32, (), ()), Conclude(b"2" * 32, (), ())
    said = dict(zip(roster.members, (one, two, one, two), strict=False))
    messages = {peer: make_message(peer, stage, payload) for peer, payload in said.items()}
    assert find_conclusion(roster, messages) is None
    stranger = make_roster(9).members[8]
    messages[stranger] = make_message(stranger, stage, one)
    assert find_conclusion(roster, messages) is None
    messages[roster.members[4]] = make_message(roster.members[4], stage, one)
    found = find_conclusion(roster, messages)
    assert found is not None
    assert (found[0], len(found[1])) == (one, 3)


@pytest.mark.parametrize(
    ("serials", "restart"), [((), None), ((1, 1), None), ((1, 1, 1), 1), ((1, 2, 3), 1), ((1, 2, 3, 3, 2**40), 3)]
)
def test_restart_is_at_the_highest_serial_that_more_than_half_have_reached(
    serials: tuple[int, ...], restart: int | None
) -> None:
    """A lie about a serial moves nobody, and too few move nobody."""
    roster = make_roster(5)
    said = dict(zip(roster.members, serials, strict=False))
    assert find_restart(roster, said | {make_roster(9).members[8]: 7}) == restart
