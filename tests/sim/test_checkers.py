"""The checkers notice what must not happen: each is shown observations that were forged for it."""

from collections.abc import Mapping

import pytest
import torch

from btard.errors import Banned, LocalProtocolError, Removed, Undecided
from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase, Reveal, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.sim.checkers import Accountability, Agreement, Checker, Invariant, NoFalseBan, NothingLost, Progress, Truth
from btard.sim.tasks import PlainState
from btard.swarm.events import Departed, Recovered, RoundDone
from btard.swarm.state import State
from btard.wire import compute_seal_digest, open_message, sign_message

IDENTITIES = sorted((Identity(bytes([number]) * 32) for number in range(5)), key=lambda item: item.peer_id)
PEERS = tuple(identity.peer_id for identity in IDENTITIES)
RUN_ID = bytes(32)


def make_truth(adversaries: Mapping[int, str] | None = None, **changes: object) -> Truth:
    """Return a truth about five peers, of which the last is Byzantine."""
    return Truth(PEERS, adversaries if adversaries is not None else {4: "equivocate"}, rounds=9, **changes)  # type: ignore[arg-type]


def end_round(number: int, *, state: bytes = bytes(32), roster: tuple[PeerId, ...] = PEERS, banned=()) -> RoundDone:
    """Return what a peer tells at the end of a round."""
    seal = Seal(RUN_ID, number, 0, b"", state, b"", roster, banned, b"", bytes(32), 100)
    digest = compute_seal_digest(seal)
    result = State(number + 1, 0, Roster(roster), torch.zeros(1), PlainState(), seal, digest, digest)
    return RoundDone(number, 1, 0.0, roster, (), result)


def depart(index: int, kind: DepartureKind, round_number: int = 3) -> Departed:
    """Return the news that a peer left."""
    return Departed(PEERS[index], round_number, 0, kind, Cause.SILENCE)


def sign(index: int, stage: Stage, nonce: bytes = bytes(32)) -> SignedMessage:
    """Return a signed message as any receiver reads it."""
    message = sign_message(IDENTITIES[index], RUN_ID, bytes(32), stage, b"", Reveal(nonce, ()))
    return open_message(RUN_ID, message.envelope)


def require(checker: Checker, words: str) -> None:
    """One violation was found, of the checker's invariant, and its detail has these words."""
    (violation,) = checker.violations
    assert violation.invariant is checker.invariant
    assert words in violation.detail


@pytest.mark.parametrize(
    "other",
    [
        end_round(1, state=b"\x01" * 32),
        end_round(1, roster=PEERS[:4]),
        end_round(1, banned=(PEERS[4],)),
    ],
    ids=["update", "roster", "bans"],
)
def test_different_rounds_break_agreement(other: RoundDone) -> None:
    """Two peers that finish a round with another state, roster or ban list have split."""
    checker = Agreement(make_truth())
    for index, done in ((0, end_round(1)), (1, other)):
        checker.observe(index, done)
        checker.observe(index, end_round(2))
    require(checker, "different seals")


def test_a_round_that_is_opened_again_breaks_nothing() -> None:
    """What a peer says of a round is provisional until it has finished the next one."""
    checker = Agreement(make_truth())
    checker.observe(0, end_round(1, state=b"\x01" * 32))
    for index in (0, 1):
        checker.observe(index, end_round(1))
        checker.observe(index, end_round(2))
        checker.ended(index, None)
    assert checker.violations == []


def test_the_last_round_counts_too() -> None:
    """Peers that end well with different last rounds have split."""
    checker = Agreement(make_truth())
    for index in (0, 1):
        checker.observe(index, end_round(1, state=bytes([index]) * 32))
        checker.ended(index, None)
    require(checker, "peers 0 and 1")


def test_a_split_by_double_signers_without_synchrony_is_no_violation() -> None:
    """With double-signers and without synchrony no protocol of this kind prevents a split."""
    checker = Agreement(make_truth(is_synchronous=False))
    for index in (0, 1):
        checker.observe(index, end_round(1, state=bytes([index]) * 32))
        checker.ended(index, None)
    assert checker.violations == []


@pytest.mark.parametrize(
    ("victim", "kind", "changes", "is_wrong"),
    [
        (0, DepartureKind.BAN, {}, True),
        (0, DepartureKind.BAN, {"is_synchronous": False}, True),
        (0, DepartureKind.BAN, {"crashed": frozenset({0})}, True),
        (0, DepartureKind.REMOVAL, {}, True),
        (0, DepartureKind.REMOVAL, {"is_synchronous": False}, False),
        (0, DepartureKind.REMOVAL, {"crashed": frozenset({0})}, True),
        (0, DepartureKind.REMOVAL, {"crashed": frozenset({0}), "late": frozenset({0})}, False),
        (0, DepartureKind.GOODBYE, {}, False),
        (4, DepartureKind.BAN, {}, False),
    ],
)
def test_who_may_leave(victim: int, kind: DepartureKind, changes: dict[str, object], is_wrong: bool) -> None:
    """A ban of an honest peer is always wrong, a removal where synchrony holds and it lives, or is back at once."""
    checker = NoFalseBan(make_truth(**changes))
    checker.observe(1, depart(victim, kind))
    assert bool(checker.violations) is is_wrong


def test_without_an_honest_majority_nothing_is_promised() -> None:
    """Who lost its honest majority to a partition may ban whom it likes."""
    checker = NoFalseBan(make_truth({3: "late", 4: "late"}, is_synchronous=False))
    checker.observe(1, depart(0, DepartureKind.REMOVAL))
    checker.observe(1, depart(2, DepartureKind.BAN))
    assert checker.violations == []


@pytest.mark.parametrize("error", [Banned("why"), Removed("why")])
def test_who_is_thrown_out_was_thrown_out_wrongly(error: Exception) -> None:
    """An honest peer that ends by a ban or a removal counts even if nobody else saw it."""
    checker = NoFalseBan(make_truth())
    checker.ended(0, error)
    require(checker, "thrown out")


def test_a_provable_cheat_that_stays_breaks_accountability() -> None:
    """Who equivocates in round 2 may be on the roster of round 4, not on that of round 5."""
    checker = Accountability(make_truth(), lambda: {4: 2})
    for number in (3, 4):
        checker.observe(0, end_round(number))
    assert checker.violations == []
    checker.observe(0, end_round(5))
    require(checker, "still here")


def test_a_cheat_that_chance_must_have_found_breaks_accountability() -> None:
    """Who sends false gradients for as long as one swarm in 10^9 would let it has not been looked for."""
    checker = Accountability(make_truth({4: "sign-flip"}), lambda: {4: 1})
    rounds = 0
    while not checker.violations:
        rounds += 1
        checker.observe(0, end_round(rounds))
    assert 80 < rounds < 120  # log(1e-9) / log(1 - 1/4 * 4/5) is 93


def test_too_many_recoveries_break_progress() -> None:
    """One Byzantine peer of five forces at most four recoveries."""
    checker = Progress(make_truth())
    for _ in range(checker.most_recoveries):
        checker.observe(0, Recovered(1, (), (), 1.0))
    assert (checker.most_recoveries, checker.violations) == (4, [])
    checker.observe(0, Recovered(1, (), (), 1.0))
    require(checker, "recoveries")


def test_standing_still_breaks_progress() -> None:
    """A swarm that finishes no round for ten minutes stands still."""
    checker = Progress(make_truth())
    checker.observe(0, end_round(1))
    assert not checker.look(500.0)
    assert not checker.look(1100.0)
    assert checker.look(1101.0)
    require(checker, "no round")


@pytest.mark.parametrize("stuck", [True, False])
def test_a_run_that_all_have_ended_stands_not_still(stuck: bool) -> None:
    """Strangers may look for it still; but a member that does not end is stuck in its last COMMIT."""
    checker = Progress(make_truth())
    for index in (0, 1):
        checker.observe(index, end_round(checker.truth.rounds))
    checker.ended(0, None)
    if not stuck:
        checker.ended(1, None)
    checker.look(0.0)
    assert checker.look(1101.0)
    assert bool(checker.violations) == stuck


@pytest.mark.parametrize(
    ("error", "changes", "is_wrong"),
    [
        (None, {}, False),
        (Undecided("why"), {}, True),
        (Undecided("why"), {"is_synchronous": False}, False),
        (Undecided("why"), {"crashed": frozenset({0})}, True),
        (Undecided("why"), {"crashed": frozenset({0}), "late": frozenset({0})}, False),
        (LocalProtocolError("why"), {"is_synchronous": False}, True),
        (KeyError("why"), {"is_synchronous": False}, True),
    ],
)
def test_how_an_honest_peer_may_end(error: Exception | None, changes: dict[str, object], is_wrong: bool) -> None:
    """An error of its own code never ends an honest peer; where synchrony holds nothing does, crashed or not."""
    checker = Progress(make_truth(**changes))
    checker.ended(0, error)
    assert bool(checker.violations) is is_wrong


def test_signing_twice_loses_something() -> None:
    """Two messages of an honest peer for one slot are a violation; copies are none, nor are those of a cheat."""
    checker = NothingLost(make_truth())
    stage = Stage(1, 0, Phase.REVEAL)
    for index in (0, 4):
        checker.see(sign(index, stage))
        checker.see(sign(index, stage))
        checker.see(sign(index, stage._replace(attempt=1)))
    checker.see(sign(4, stage, b"\x01" * 32))
    assert checker.violations == []
    checker.see(sign(0, stage, b"\x01" * 32))
    require(checker, "signed two messages")


@pytest.mark.parametrize(
    ("problems", "recorded", "words"),
    [(["why"], [(PEERS[4], 3)], "does not hold"), ([], [], "no evidence"), ([], [(PEERS[4], 2)], "no evidence")],
)
def test_a_ban_without_evidence_loses_something(problems: list[str], recorded: list[object], words: str) -> None:
    """A ledger that does not audit, or lacks a ban that its peer told, is a violation."""
    checker = NothingLost(make_truth())
    checker.observe(0, depart(4, DepartureKind.BAN))
    checker.audit(0, problems, recorded)  # type: ignore[arg-type]
    require(checker, words)


def test_every_invariant_has_its_checker() -> None:
    """Five invariants, five checkers."""
    classes = (Agreement, NoFalseBan, Accountability, Progress, NothingLost)
    assert [item.invariant for item in classes] == list(Invariant)
