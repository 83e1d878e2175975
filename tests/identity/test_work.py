"""Identity work and join tickets: what is accepted was worked for, by this key, for this run, lately."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.identity import Context, Flaw, JoinTicket, PeerId, Puzzle, TicketTerms, digest, find_flaw
from btard.identity import work as work_module
from btard.identity.work import (
    MAX_NONCE,
    find_cheap_flaw,
    find_identity_nonce,
    has_zero_bits,
    is_identity_worked,
    pose_puzzle,
)

ME, OTHER = PeerId(b"m" * 32), PeerId(b"o" * 32)
Q, TERMS, BITS, NEWEST = b"q" * 32, TicketTerms(b"r" * 32, 6, 8, 16), 10, 20


def solve(puzzle):
    """The lowest nonce that solves a puzzle."""
    return next(nonce for nonce in range(100_000) if puzzle.is_solved_by(nonce))


def work_on(peer=ME, terms=TERMS, q=Q, number=12, identity_bits=6):
    """A ticket for which the work was done."""
    identity = find_identity_nonce(peer, identity_bits, 0, 100_000)
    puzzle = Puzzle(terms.run_id, peer, identity, number, q, terms.memory_kib, BITS)
    return puzzle.make_ticket(solve(puzzle))


GOOD = work_on()


def judge(ticket, terms=TERMS, newest=NEWEST, q=Q, bits=BITS):
    """What is wrong with a ticket where everything else is as it should be."""
    return find_flaw(ticket, terms, newest, q, bits)


@pytest.fixture
def evaluations(monkeypatch):
    """The calls of Argon2id."""
    calls = []
    original = Puzzle.evaluate
    monkeypatch.setattr(Puzzle, "evaluate", lambda puzzle, nonce: calls.append(nonce) or original(puzzle, nonce))
    return calls


def test_a_ticket_with_its_work_is_accepted(evaluations):
    """Key, run, round and work fit: nothing is wrong, and one evaluation found it out."""
    assert judge(GOOD) is None
    assert len(evaluations) == 1


@pytest.mark.parametrize(
    ("flaw", "newest", "q"),
    [(Flaw.FUTURE, 11, Q), (Flaw.STALE, 28, Q), (Flaw.STALE, 10**15, Q), (Flaw.UNKNOWN, NEWEST, None)],
)
def test_a_round_that_is_not_recent_costs_no_evaluation(flaw, newest, q, evaluations):
    """Tickets on a round to come, one too long ago or one that we do not know are refused at once."""
    assert judge(GOOD, newest=newest, q=q) is flaw
    assert evaluations == []


def test_a_ticket_is_good_for_the_window_from_its_round_on():
    """In the round that it names and the fifteen after it, no earlier and no later."""
    good = [newest for newest in range(40) if judge(GOOD, newest=newest) is None]
    assert good == list(range(12, 28))


def test_missing_identity_work_costs_no_evaluation(evaluations):
    """Whoever did not work for its key cannot make us work."""
    idle = next(nonce for nonce in range(100) if not is_identity_worked(ME, nonce, 6))
    assert judge(msgspec.structs.replace(GOOD, identity_nonce=idle)) is Flaw.IDENTITY
    assert evaluations == []


def test_work_of_another_key_run_or_draw_is_none():
    """A ticket cannot be given away, shown in another run, or made before the draw was known (design section 6)."""
    stolen = msgspec.structs.replace(GOOD, peer=OTHER, identity_nonce=find_identity_nonce(OTHER, 6, 0, 10_000))
    assert judge(stolen, bits=BITS) is Flaw.WORK
    assert judge(GOOD, terms=replace(TERMS, run_id=b"s" * 32)) is Flaw.WORK
    assert judge(GOOD, q=b"p" * 32) is Flaw.WORK
    assert judge(msgspec.structs.replace(GOOD, round=13)) is Flaw.WORK


def test_one_solution_is_one_ticket():
    """Another identity nonce, cheap to find, makes no second ticket: each entry in the lottery is paid for."""
    another = find_identity_nonce(ME, 6, GOOD.identity_nonce + 1, 100_000)
    assert is_identity_worked(ME, another, 6)
    assert judge(msgspec.structs.replace(GOOD, identity_nonce=another)) is Flaw.WORK


def test_a_ticket_of_less_memory_is_none():
    """Work with other parameters of Argon2id is other work."""
    assert judge(work_on(terms=replace(TERMS, memory_kib=16))) is Flaw.WORK


def test_a_harder_epoch_wants_more():
    """The same ticket does not do where more bits are asked."""
    least = next(bits for bits in range(BITS, 64) if judge(GOOD, bits=bits) is not None)
    assert not has_zero_bits(pose_puzzle(GOOD, TERMS, Q, 0).evaluate(GOOD.nonce), least)


NUMBERS = st.integers(0, MAX_NONCE - 1)


@given(st.binary(min_size=32, max_size=32), NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_any_ticket_leads_to_a_value(peer, number, identity_nonce, nonce, newest):
    """Whatever a peer presents, also the largest numbers, is judged without an exception."""
    ticket = JoinTicket(peer, number, identity_nonce, nonce)
    free = replace(TERMS, identity_bits=0)
    assert find_flaw(ticket, free, max(newest, number), Q, 64) in {Flaw.STALE, Flaw.WORK}
    assert find_cheap_flaw(ticket, TERMS, newest, None) in {Flaw.FUTURE, Flaw.STALE, Flaw.UNKNOWN}


FIELDS = (ME, 12, 3, 4)


@pytest.mark.parametrize(
    "values",
    [
        (b"short", 12, 3, 4),
        (ME + b"x", 12, 3, 4),
        (ME, -1, 3, 4),
        (ME, 2**53, 3, 4),
        (ME, 12, 2**53, 4),
        (ME, 12, 3, 2**64 - 1),
        (ME, 12, 3, -(2**63)),
        (ME, 12.0, 3, 4),
        (ME, 12, 3),
        (ME, 12, 3, 4, 5),
        (ME, None, 3, 4),
        ("m" * 32, 12, 3, 4),
    ],
    ids=str,
)
def test_what_is_no_ticket_is_not_decoded(values):
    """Sizes, signs, types and the number of fields are checked before anything is computed."""
    decoder = msgspec.msgpack.Decoder(JoinTicket)
    assert decoder.decode(msgspec.msgpack.encode(FIELDS)) == JoinTicket(*FIELDS)
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(msgspec.msgpack.encode(values))


def test_a_ticket_is_small():
    """It fits into a COMMIT message twice without anybody noticing."""
    assert len(msgspec.msgpack.encode(JoinTicket(ME, *[MAX_NONCE - 1] * 3))) <= 64


@given(st.binary(min_size=32, max_size=32), st.integers(0, 64))
def test_zero_bits_are_counted_from_the_first(value, bits):
    """As many leading zeros as the binary digits say."""
    assert has_zero_bits(value, bits) == (f"{int.from_bytes(value, 'big'):0256b}"[:bits] == "0" * bits)


def test_identity_work_is_bound_to_the_key():
    """The nonce of one key is worth nothing to another, and none was skipped in finding it."""
    nonce = find_identity_nonce(ME, 8, 0, 100_000)
    assert [n for n in range(nonce + 1) if is_identity_worked(ME, n, 8)] == [nonce]
    assert sum(is_identity_worked(OTHER, n, 8) for n in range(2560)) == pytest.approx(10, abs=9)
    assert find_identity_nonce(ME, 8, 0, nonce) is None
    assert find_identity_nonce(ME, 8, nonce + 1, 0) is None


def test_both_works_are_apart_from_every_other_use_of_the_hash(monkeypatch):
    """The works have contexts of their own, and Argon2id gets exactly the memory of the run."""
    asked = []
    monkeypatch.setattr(work_module, "compute_argon2", lambda *words: asked.append(words) or bytes(32))
    assert Puzzle(TERMS.run_id, ME, 1, 12, Q, 8, 3).is_solved_by(7)
    ((size, secret, salt, passes, memory, _),) = asked
    numbers = (12).to_bytes(8, "little") + (1).to_bytes(8, "little")
    challenge = digest(Context.JOIN_TICKET, TERMS.run_id, ME, Q, numbers)
    assert (size, secret, salt, passes, memory) == (32, challenge + (7).to_bytes(8, "little"), challenge[:16], 3, 8192)


def test_digest_is_that_of_argon2id():
    """A fixed vector: tickets mean the same on every machine and with every version."""
    assert Puzzle(bytes(32), PeerId(bytes(32)), 0, 0, bytes(32), 8, 0).evaluate(0).hex() == VECTOR


VECTOR = "f40a62e25b0bd91b9dac3f74708e417b1e6b6f18af5f11d79e02881214738bed"
