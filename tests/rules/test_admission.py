"""Who may join: what counts of what is quoted, how many, who first, and when a candidate is a member (attacks B8)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_seal
from tests.rules.build import make_config, make_peers, make_roster, make_transcript

from btard.identity import JoinTicket, PeerId
from btard.rules.admission import (
    MAX_BANNED,
    Work,
    choose_quoted,
    compute_skipping_odds,
    count_admissions,
    count_places,
    decide_admission,
    draw_checks,
    find_closure,
    find_works,
    is_open,
    rank_ticket,
)
from btard.rules.messages import Commit, Phase, Quotes, Report, Sample, Stage, Transcript
from btard.rules.seal import Candidate, Seal

CONFIG = make_config(probation=3, state_interval=10, projections=2, ticket_bits=4)
ROSTER = make_roster(16)
MEMBERS = ROSTER.members
F = 7
ADA, BOB, EVE = (PeerId(bytes([number]) * 32) for number in (200, 201, 202))
REPORT, OTHER = Report((0.5, -0.25), 2.0), Report((0.25, -0.25), 2.0)


def seal(number: int = 20, candidates: Sequence[Candidate] = (), admitted: int = 0, members: int = 16) -> Seal:
    """The seal of a round, with these on probation."""
    roster = tuple(make_roster(members).members)
    return Seal(
        CONFIG.run_id, number, 0, b"t" * 32, b"s" * 32, b"", roster, (), b"p" * 32, b"q" * 32, 5, tuple(candidates),
        admitted, 4,
    )  # fmt: skip


def say(quotes: Mapping[PeerId, Quotes], number: int = 21) -> Transcript:
    """The COMMITs of the roster, with these quotes."""
    commits = {
        peer: Commit(b"r" * 32, False, (), b"s" * 32, b"g" * 64, False, quotes.get(peer, Quotes())) for peer in MEMBERS
    }
    return make_transcript(Stage(number, 0, Phase.COMMIT), commits)


def ticket(peer: PeerId, nonce: int = 1) -> JoinTicket:
    """A ticket of ``peer``."""
    return JoinTicket(peer, 15, 3, nonce)


def quote_tickets(count: int, *tickets: JoinTicket) -> Transcript:
    """The first ``count`` members quote these tickets."""
    return say({peer: Quotes(tickets=tickets) for peer in MEMBERS[:count]})


def quote_samples(*groups: tuple[int, PeerId, Report]) -> Transcript:
    """So many members, one after another, quote each sample."""
    samples = [Sample(candidate, report) for count, candidate, report in groups for _ in range(count)]
    return say({peer: Quotes(samples=(sample,)) for peer, sample in zip(MEMBERS, samples, strict=False)})


def decide(before: Seal, commits: Transcript, works: Sequence[Work] = (), gone: Sequence[PeerId] = ()):
    """What a round leads to."""
    return decide_admission(CONFIG, before, commits, ROSTER, gone, works)


def work(peer: PeerId, number: int = 20) -> Work:
    """A candidate worked in a round."""
    return Work(peer, number, REPORT)


@pytest.mark.parametrize(("quoting", "is_admitted"), [(F, False), (F + 1, True), (16, True)])
def test_a_ticket_counts_if_an_honest_member_must_have_verified_it(quoting, is_admitted):
    """What f cheats quote is nothing; one more, and somebody honest has done the evaluation."""
    found = decide(seal(), quote_tickets(quoting, ticket(ADA)))
    assert found.candidates == ((Candidate(ADA, 21, 0),) if is_admitted else ())
    assert found.admitted == int(is_admitted)


def test_a_member_that_quotes_a_ticket_twice_counts_once():
    """The same ticket twice in one COMMIT is one voice."""
    twice = {peer: Quotes(tickets=(ticket(ADA), ticket(ADA))) for peer in MEMBERS[:F]}
    assert decide(seal(), say(twice)).candidates == ()


def test_of_many_tickets_the_lowest_lot_wins_and_the_next_epoch_is_another_draw():
    """With one place an epoch the draw decides, not who came first or quoted louder."""
    peers = make_peers(40)[20:]
    tickets = sorted((ticket(peer) for peer in peers), key=lambda item: rank_ticket(seal().q, item))[:2]
    found = decide(seal(), quote_tickets(16, *reversed(tickets)))
    assert [item.peer for item in found.candidates] == [tickets[0].peer]
    assert rank_ticket(b"1" * 32, tickets[0]) != rank_ticket(b"2" * 32, tickets[0])


def test_more_tickets_of_one_key_are_more_lots_for_one_place():
    """Whoever solves twice is drawn by the better one, and holds one place."""
    found = decide(seal(), quote_tickets(16, ticket(ADA, 1), ticket(ADA, 2)))
    assert found.candidates == (Candidate(ADA, 21, 0),)


def test_members_candidates_banned_and_dismissed_are_not_admitted():
    """Nobody is twice in the run, and whoever was just thrown out does not come back by an old ticket."""
    before = seal(candidates=[Candidate(BOB, 19, 0)])
    commits = quote_tickets(16, ticket(BOB), ticket(MEMBERS[3]))
    assert decide(before, commits).candidates == (Candidate(BOB, 19, 0),)
    assert decide(seal(), quote_tickets(16, ticket(EVE)), gone=[EVE]).candidates == ()


def test_an_epoch_admits_a_sixteenth_and_the_next_one_begins_anew():
    """Admissions are counted in the seals, so all count the same; the count ends with the epoch."""
    assert count_admissions(make_roster(15)) == count_admissions(make_roster(31)) == 1
    assert count_admissions(make_roster(64)) == 4
    assert not is_open(CONFIG, seal(21, admitted=1))
    assert decide(seal(21, admitted=1), quote_tickets(16, ticket(ADA))).candidates == ()
    assert is_open(CONFIG, seal(29, admitted=1))
    assert decide(seal(29, admitted=1), quote_tickets(16, ticket(ADA))).candidates == (Candidate(ADA, 30, 0),)


def test_at_most_a_quarter_of_the_roster_is_on_probation():
    """Places are few whatever the demand (attacks B8)."""
    assert [count_places(make_roster(size)) for size in (1, 4, 5, 16, 17)] == [1, 1, 2, 4, 5]
    assert [count_places(make_roster(size)) for size in (51, 52, 60, 63, 64, 65)] == [13, 12, 4, 1, 0, 0]
    full = [Candidate(PeerId(bytes([210 + index]) * 32), 20, 0) for index in range(4)]
    assert not is_open(CONFIG, seal(candidates=full))
    assert decide(seal(candidates=full), quote_tickets(16, ticket(ADA))).candidates == tuple(full)


def test_a_closed_run_admits_nobody():
    """The founder may want a fixed roster."""
    closed = replace(CONFIG, admission="closed")
    assert not is_open(closed, seal())
    found = decide_admission(closed, seal(), quote_tickets(16, ticket(ADA)), ROSTER, (), ())
    assert (found.candidates, found.promoted) == ((), ())


@pytest.mark.parametrize("is_full", [False, True])
def test_a_run_that_has_banned_very_many_admits_nobody(is_full):
    """Whoever is on probation by then may become a member: a seal has room for them, should all be banned."""
    bans = (EVE,) * (MAX_BANNED - 1 + is_full)
    before = replace_seal(seal(candidates=[Candidate(BOB, 19, 2)]), banned=bans)
    found = decide(before, quote_tickets(16, ticket(ADA)), [work(BOB)])
    assert is_open(CONFIG, before) is not is_full
    assert bool(find_closure(CONFIG, before)) is is_full
    assert [item.peer for item in found.candidates] == ([] if is_full else [ADA])
    assert found.promoted == (BOB,)


@pytest.mark.parametrize(
    ("groups", "worked"),
    [
        ([(F, ADA, REPORT)], False),
        ([(F + 1, ADA, REPORT)], True),
        ([(F + 1, ADA, REPORT), (F, ADA, OTHER)], True),
        ([(F + 1, ADA, REPORT), (F + 1, ADA, OTHER)], False),
        ([(16, EVE, REPORT)], False),
        ([(16, ADA, Report((0.5,), 2.0))], False),
        ([(16, ADA, Report((float("nan"), 0.0), 2.0))], False),
        ([(16, ADA, Report((0.5, 0.5), -1.0))], False),
    ],
)
def test_a_sample_counts_if_more_than_f_quote_it_and_no_other(groups, worked):
    """Whoever tells members different things has worked for nothing, and f cheats can neither add nor undo a round."""
    found = find_works(CONFIG, seal(candidates=[Candidate(ADA, 18, 1)]), quote_samples(*groups), ROSTER)
    assert found == ((Work(ADA, 20, REPORT),) if worked else ())


def test_candidate_is_promoted_when_it_has_worked_long_enough_and_works_still():
    """The T-th round that counts makes a member; nobody is promoted that is not there."""
    before = seal(candidates=[Candidate(ADA, 15, 2), Candidate(BOB, 14, 5)])
    found = decide(before, say({}), [work(ADA)])
    assert found.promoted == (ADA,)
    assert found.candidates == (Candidate(BOB, 14, 5),)


def test_candidate_works_all_rounds_of_its_probation():
    """One round less than T is not enough."""
    found = decide(seal(candidates=[Candidate(ADA, 15, 1)]), say({}), [work(ADA)])
    assert (found.candidates, found.promoted) == ((Candidate(ADA, 15, 2),), ())


def test_candidate_that_is_banned_or_dismissed_is_none_any_more():
    """However much it has worked."""
    before = seal(candidates=[Candidate(ADA, 15, 2), Candidate(BOB, 15, 1)])
    found = decide(before, say({}), [work(ADA), work(BOB)], gone=(ADA, BOB))
    assert (found.candidates, found.promoted) == ((), ())


def test_nobody_is_promoted_by_the_last_round():
    """There is none in which it could begin."""
    config = replace(CONFIG, rounds=21)
    before = seal(candidates=[Candidate(ADA, 15, 5)])
    assert decide_admission(config, before, say({}), ROSTER, (), [work(ADA)]).promoted == ()


def test_one_candidate_is_promoted_at_a_time_the_longest_waiting_first():
    """Two that are ready enter in two rounds: no seal changes the roster by much."""
    before = seal(candidates=[Candidate(ADA, 15, 9), Candidate(BOB, 14, 9)])
    first = decide(before, say({}), [work(ADA), work(BOB)])
    assert first.promoted == (BOB,)
    assert first.candidates == (Candidate(ADA, 15, 10),)


def test_candidate_lapses_after_twice_its_time_and_an_epoch():
    """Nobody holds a place for ever by working now and then."""
    before = seal(20, candidates=[Candidate(ADA, 5, 1), Candidate(BOB, 4, 1)])
    assert decide(before, say({})).candidates == (Candidate(ADA, 5, 1),)


def test_difficulty_follows_the_admissions_of_the_epoch_before():
    """It rises where the epoch was full and falls where nobody came, at the epoch's first round alone."""
    assert decide(seal(28, admitted=1), say({})).ticket_bits == 4
    assert decide(seal(29, admitted=1), say({})).ticket_bits == 5
    assert decide(seal(29), say({})).ticket_bits == 4


def test_checks_are_drawn_for_a_share_of_the_works_and_spread_over_the_roster():
    """By each q about half of the works are redone, by anybody alike (design section 6, Joining 4)."""
    half = replace(CONFIG, check_rate=0.5)
    drawn = [
        check for number in range(400) for check in draw_checks(half, number.to_bytes(32, "big"), ROSTER, [work(ADA)])
    ]
    assert 160 < len(drawn) < 240
    assert {check.checker for check in drawn} == set(MEMBERS)
    every = replace(CONFIG, check_rate=1.0)
    assert len(draw_checks(every, b"q" * 32, ROSTER, [work(ADA), work(BOB)])) == 2


def test_quoted_are_the_lowest_lots():
    """Whatever a member holds, it quotes those that can win."""
    held = [ticket(peer) for peer in make_peers(30)]
    chosen = choose_quoted(b"q" * 32, held, 2)
    assert list(chosen) == sorted(held, key=lambda item: rank_ticket(b"q" * 32, item))[:2]


@given(st.integers(3, 64), st.floats(0.5, 1.0))
def test_at_the_defaults_an_idle_candidate_has_less_than_one_chance_in_ten_thousand(members, rate):
    """However large the roster and however many of it are cheats, as long as they are fewer than half."""
    tolerated = make_roster(members).tolerated()
    assert compute_skipping_odds(rate, 32, members, tolerated) < 1e-4


def test_odds_are_those_of_the_draw():
    """The formula is what drawing gives: idle candidates are checked by honest members as often as it says."""
    honest, escaped, tries = set(MEMBERS[F:]), 0, 2000
    half = replace(CONFIG, check_rate=0.5, probation=4)
    for number in range(tries):
        rounds = (number.to_bytes(16, "big") + index.to_bytes(16, "big") for index in range(half.probation))
        checks = [check for q in rounds for check in draw_checks(half, q, ROSTER, [work(EVE)])]
        escaped += not any(check.checker in honest for check in checks)
    expected = compute_skipping_odds(half.check_rate, half.probation, 16, F)
    assert 0.2 < expected < 0.3, "neither is near to certain"
    assert escaped / tries == pytest.approx(expected, abs=0.03)
