"""Draws: what nobody controls is uniform, bound to its slot, and the same at every peer (attacks A1, A2, C9)."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_message, make_peers, make_roster, make_transcript

from btard.identity import Context, PeerId, digest
from btard.rules.draws import (
    combine_nonces,
    commit_to_nonce,
    compute_minibatch_seed,
    compute_part_order,
    derive_nonce,
    draw_validators,
    find_broken_reveals,
)
from btard.rules.messages import Aggregate, Check, Confirm, Phase, Reveal, Slot, Stage

PEERS = make_peers(5)
REVEAL, CONFIRM = Stage(3, 1, Phase.REVEAL), Stage(3, 1, Phase.CONFIRM)


def seed(number: int) -> bytes:
    """The ``number``-th fixed draw."""
    return digest(Context.VALIDATORS, number.to_bytes(8, "little"))


def nonces_of(stage: Stage) -> dict[PeerId, bytes]:
    """Everyone's nonce for a stage."""
    return {peer: derive_nonce(peer, Slot(stage, peer)) for peer in PEERS}


@pytest.mark.parametrize("stage", [REVEAL, CONFIRM], ids=["r", "q"])
def test_kept_promises_are_not_broken_reveals(stage: Stage) -> None:
    """Whoever reveals what it committed to is not blamed, in either draw."""
    assert find_broken_reveals(*make_promises(stage, nonces_of(stage))) == ()


@pytest.mark.parametrize("stage", [REVEAL, CONFIRM], ids=["r", "q"])
def test_broken_promise_names_exactly_its_author(stage: Stage) -> None:
    """A nonce other than the promised one is found."""
    revealed = nonces_of(stage) | {PEERS[3]: b"\x00" * 32}
    assert find_broken_reveals(*make_promises(stage, revealed)) == (PEERS[3],)


def make_promises(stage: Stage, revealed: dict[PeerId, bytes]) -> tuple:
    """Honest commitments to the nonces of ``stage``, and the nonces revealed in it."""
    promises = {peer: commit_to_nonce(Slot(stage, peer), nonce) for peer, nonce in nonces_of(stage).items()}
    if stage.phase is Phase.REVEAL:
        commitments = {peer: Aggregate(b"", 0.0, (), promise, ()) for peer, promise in promises.items()}
        reveals = {peer: Reveal(nonce, ()) for peer, nonce in revealed.items()}
        return make_transcript(stage._replace(phase=Phase.AGGREGATE), commitments), make_transcript(stage, reveals)
    checks = {peer: Check((), promise) for peer, promise in promises.items()}
    confirms = {peer: Confirm(nonce, ()) for peer, nonce in revealed.items()}
    return make_transcript(stage._replace(phase=Phase.CHECK), checks), make_transcript(stage, confirms)


@pytest.mark.parametrize(
    "slot",
    [
        Slot(REVEAL._replace(round=4), PEERS[0]),
        Slot(REVEAL._replace(attempt=2), PEERS[0]),
        Slot(REVEAL._replace(phase=Phase.CONFIRM), PEERS[0]),
        Slot(REVEAL._replace(serial=1), PEERS[0]),
        Slot(REVEAL, PEERS[1]),
    ],
    ids=["round", "attempt", "phase", "serial", "sender"],
)
def test_nonce_and_its_commitment_are_bound_to_the_slot(slot: Slot) -> None:
    """Another slot has another nonce, and a copied commitment cannot be opened elsewhere (attacks C9)."""
    first = Slot(REVEAL, PEERS[0])
    assert derive_nonce(b"secret", slot) != derive_nonce(b"secret", first)
    assert commit_to_nonce(slot, b"n" * 32) != commit_to_nonce(first, b"n" * 32)


def test_new_attempt_draws_a_fresh_r() -> None:
    """A redone AGGREGATE never meets a direction that is known already (attacks A2)."""
    again = REVEAL._replace(attempt=2)
    first = make_transcript(REVEAL, {peer: Reveal(nonce, ()) for peer, nonce in nonces_of(REVEAL).items()})
    second = make_transcript(again, {peer: Reveal(nonce, ()) for peer, nonce in nonces_of(again).items()})
    assert combine_nonces(first) != combine_nonces(second)


def test_directions_and_validators_are_different_draws() -> None:
    """R tells nothing about q even under equal nonces: targets are unknown when reports are signed (attacks A1)."""
    r = make_transcript(REVEAL, {peer: Reveal(b"n" * 32, ()) for peer in PEERS})
    q = make_transcript(CONFIRM, {peer: Confirm(b"n" * 32, ()) for peer in PEERS})
    assert combine_nonces(r) != combine_nonces(q)


@pytest.mark.parametrize("index", range(5))
def test_every_nonce_counts(index: int) -> None:
    """One changed nonce, whoever's it is, gives another draw; so does one nonce less."""
    payloads = {peer: Confirm(bytes([n]) * 32, ()) for n, peer in enumerate(PEERS)}
    draw = combine_nonces(make_transcript(CONFIRM, payloads))
    changed = payloads | {PEERS[index]: Confirm(b"\xff" * 32, ())}
    missing = {peer: payload for peer, payload in payloads.items() if peer != PEERS[index]}
    assert (
        len(
            {draw, combine_nonces(make_transcript(CONFIRM, changed)), combine_nonces(make_transcript(CONFIRM, missing))}
        )
        == 3
    )


def test_draw_depends_on_nonces_alone() -> None:
    """Namings, signatures and whatever else stands beside a nonce cannot steer the draw."""
    plain = make_transcript(CONFIRM, {peer: Confirm(b"n" * 32, ()) for peer in PEERS})
    named = make_transcript(CONFIRM, {peer: Confirm(b"n" * 32, (PEERS[0],)) for peer in PEERS})
    signed = replace(plain, messages=tuple(replace(message, envelope=b"other") for message in plain.messages))
    assert combine_nonces(plain) == combine_nonces(named) == combine_nonces(signed)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12))
def test_part_order_is_a_permutation_that_all_share(q: bytes, count: int) -> None:
    """Every member reduces one part; the order is a function of the draw."""
    roster = make_roster(count)
    order = compute_part_order(q, roster, roster)
    assert sorted(order) == list(roster.members)
    assert order == compute_part_order(bytes(q), make_roster(count), roster)


@given(st.binary(min_size=32, max_size=32), st.sets(st.integers(0, 11), max_size=11))
def test_later_attempt_keeps_the_relative_order(q: bytes, gone: set[int]) -> None:
    """Who left is dropped from the order and nobody else moves."""
    roster = make_roster(12)
    remaining = roster.without([roster.members[index] for index in gone])
    whole = compute_part_order(q, roster, roster)
    assert compute_part_order(q, roster, remaining) == tuple(peer for peer in whole if peer in remaining)


def test_part_order_is_uniform() -> None:
    """Each of the 24 orders of four peers comes up equally often (chi-square, fixed seeds)."""
    roster, trials = make_roster(4), 4800
    counts = Counter(compute_part_order(seed(n), roster, roster) for n in range(trials))
    assert len(counts) == 24
    # 23 degrees of freedom: 49.7 is exceeded with probability 0.001; the seeds are fixed.
    assert sum((count - trials / 24) ** 2 / (trials / 24) for count in counts.values()) < 49.7


def test_minibatch_seeds_differ_by_draw_round_and_peer() -> None:
    """No two gradients share their minibatch."""
    seeds = {compute_minibatch_seed(seed(q), t, peer) for q in range(2) for t in range(3) for peer in PEERS}
    assert len(seeds) == 2 * 3 * len(PEERS)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 12), st.integers(0, 6), st.data())
def test_validators_and_targets_are_distinct(q: bytes, count: int, wanted: int, data: st.DataObject) -> None:
    """2·m different peers; targets contribute; the number is m wherever the roster suffices."""
    roster = make_roster(count)
    contributors = data.draw(st.sets(st.sampled_from(roster.members)))
    pairs = draw_validators(q, roster, contributors, wanted)
    everyone = [pair.validator for pair in pairs] + [pair.target for pair in pairs]
    assert len(set(everyone)) == len(everyone)
    assert {pair.target for pair in pairs} <= contributors
    assert set(everyone) <= set(roster.members)
    assert len(pairs) == min(wanted, len(contributors), max(0, count - min(wanted, len(contributors))))
    assert pairs == draw_validators(q, roster, list(contributors)[::-1], wanted)


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 9), max_size=5))
def test_loud_contributors_come_first(q: bytes, numbers: list[int]) -> None:
    """Whoever was loud in a column that proved right is checked before all others, once each."""
    roster = make_roster(8)
    contributors, loud = roster.members[1:], [make_peers(10)[number] for number in numbers]
    targets = [pair.target for pair in draw_validators(q, roster, contributors, 3, loud)]
    expected = set(loud) & set(contributors)
    assert set(targets[: len(expected)]) <= expected
    assert expected <= set(targets) or len(expected) > 3
    assert len(set(targets)) == len(targets) == 3


def test_target_among_the_loud_is_drawn() -> None:
    """Being loud together does not tell the colluders whom the validator will check (attacks A1)."""
    roster = make_roster(8)
    drawn = {draw_validators(seed(n), roster, roster.members, 1, roster.members[2:5])[0].target for n in range(60)}
    assert drawn == set(roster.members[2:5])


def test_departed_contributor_is_no_target() -> None:
    """A key that left meanwhile is not drawn from the roster of those who stay."""
    roster = make_roster(4)
    gone = make_peers(6)[4:]
    assert all(
        pair.target in roster
        for n in range(50)
        for pair in draw_validators(seed(n), roster, [*roster.members, *gone], 2)
    )


@pytest.mark.parametrize(("n", "b", "m"), [(8, 3, 1), (16, 7, 1), (16, 7, 2), (16, 3, 4)])
def test_attackers_are_checked_as_often_as_the_law_says(n: int, b: int, m: int) -> None:
    """A given attacker is the target of an honest validator with probability at least m/(n-1)·(n-b)/n (design, 3)."""
    roster, trials = make_roster(n), 4000
    attacker, honest = roster.members[0], set(roster.members[b:])
    caught = validators = 0
    previous = draw_validators(seed(0), roster, roster.members, m)
    for number in range(1, trials + 1):
        # The validators of the last round contribute nothing; the law is per round in which the attacker does.
        contributors = [peer for peer in roster.members if peer not in {pair.validator for pair in previous}]
        pairs = draw_validators(seed(number), roster, contributors, m)
        if attacker in contributors:
            validators += 1
            caught += any(pair.target == attacker and pair.validator in honest for pair in pairs)
        previous = pairs
    law = m / (n - 1) * (n - b) / n
    exact = m / (n - m) * (n - b) / (n - 1) if m == 1 else None
    deviation = (law * (1 - law) / validators) ** 0.5
    assert caught / validators >= law - 3 * deviation
    if exact is not None:
        assert abs(caught / validators - exact) <= 3 * deviation


def test_validator_is_uniform_among_the_others() -> None:
    """Nobody but the target is more or less likely to validate (chi-square, fixed seeds)."""
    roster, trials = make_roster(6), 3000
    counts = Counter(draw_validators(seed(n), roster, roster.members, 1)[0].validator for n in range(trials))
    assert sum((count - trials / 6) ** 2 / (trials / 6) for count in counts.values()) < 20.5  # 5 degrees, p = 0.001


def test_orders_of_consecutive_draws_are_unrelated() -> None:
    """A changed draw moves the parts: nobody keeps the same coordinates for the whole run (attacks C5)."""
    roster = make_roster(8)
    orders = [compute_part_order(seed(n), roster, roster) for n in range(20)]
    assert all(one != other for one, other in pairwise(orders))


def test_broken_reveal_is_judged_by_its_own_slot() -> None:
    """A nonce revealed in another attempt than it was promised for is broken."""
    commitments, _ = make_promises(REVEAL, nonces_of(REVEAL))
    late = REVEAL._replace(attempt=2)
    reveals = make_transcript(late, {peer: Reveal(nonce, ()) for peer, nonce in nonces_of(REVEAL).items()})
    assert find_broken_reveals(commitments, reveals) == PEERS
    assert make_message(PEERS[0], late, Reveal(b"n" * 32, ())).slot.stage == late
