"""When a seal may follow another: enough of the earlier roster vouch, and nothing is taken back."""

from collections.abc import Sequence

import msgspec
import pytest

from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.rules.succession import agrees, find_objection

CONFIG = RunConfig(rounds=100, state_interval=4)
KEYS = [bytes([index]) * 32 for index in range(12)]
DIGEST = b"d" * 32


def make_seal(number: int, members: Sequence[int] = range(5), **changes: object) -> Seal:
    """A seal whose roster are the keys with these numbers."""
    full = b"f" * 32 if number % 4 == 0 else b""
    roster = tuple(KEYS[index] for index in members)
    seal = Seal(CONFIG.run_id, number, 0, b"t" * 32, b"s" * 32, full, roster, (), DIGEST, b"q" * 32, 1)
    return msgspec.structs.replace(seal, **changes)


def object_to(seal: Seal, signers: Sequence[int], before: Seal | None = None) -> str | None:
    """What is wrong with a seal after seal 2, signed by the keys with these numbers."""
    keys = frozenset(KEYS[index] for index in signers)
    return find_objection(CONFIG, before or make_seal(2), DIGEST, seal, keys)


@pytest.mark.parametrize("number", [3, 4, 50, 100])
@pytest.mark.parametrize(
    ("members", "signers", "is_enough"),
    [
        (range(5), [0, 1, 2], True),
        (range(5), [0, 1], False),
        ([0, 1, 2, 9], [0, 1, 2], True),
        ([0, 1, 8, 9], [0, 1, 8, 9], False),
        ([7, 8, 9], [7, 8, 9], False),
    ],
    ids=["majority", "minority", "changed", "too-few-left", "strangers"],
)
def test_more_than_half_of_the_earlier_roster_vouch(
    number: int, members: Sequence[int], signers: Sequence[int], is_enough: bool
) -> None:
    """However many rounds later: those count who were members then, are so still, and signed."""
    objection = object_to(make_seal(number, members), signers)
    assert (objection is None) == is_enough
    assert is_enough or "and 3 are needed" in str(objection)


@pytest.mark.parametrize(("number", "is_enough"), [(3, True), (4, False), (50, False)])
def test_whoever_leaves_with_a_seal_vouches_for_that_one_alone(number: int, *, is_enough: bool) -> None:
    """It took part in the round of the very next seal; after that it has no word any more."""
    assert (object_to(make_seal(number, [0, 1, 8, 9]), [0, 1, 2, 8, 9]) is None) == is_enough


@pytest.mark.parametrize(
    ("seal", "reason"),
    [
        (make_seal(2), "does not come after seal 2"),
        (make_seal(1), "does not come after seal 2"),
        (make_seal(101), "after the last round"),
        (make_seal(3, run_id=b"o" * 32), "another run"),
        (make_seal(3, previous=b"o" * 32), "does not follow seal 2"),
        (make_seal(5, previous=b""), "form"),
        (make_seal(5, full_state=b"f" * 32), "form"),
        (make_seal(8, full_state=b""), "form"),
        (make_seal(5, transcript=b""), "form"),
        (make_seal(5, roster=(KEYS[1], KEYS[0], KEYS[2])), "form"),
        (make_seal(5, roster=(KEYS[0], KEYS[0], KEYS[1])), "form"),
        (make_seal(5, banned=(KEYS[9], KEYS[8])), "form"),
        (make_seal(5, banned=(KEYS[0],)), "form"),
        (make_seal(5, roster=()), "form"),
    ],
)
def test_a_seal_that_does_not_fit(seal: Seal, reason: str) -> None:
    """It is refused whoever signed it."""
    assert reason in str(object_to(seal, range(12)))


def test_bans_and_attempts_are_never_taken_back() -> None:
    """A later seal bans whoever an earlier one does, and its attempt is no older."""
    before = make_seal(2, banned=(KEYS[9],), attempt=3)
    assert "takes back" in str(object_to(make_seal(5, attempt=3), range(5), before))
    assert "takes back" in str(object_to(make_seal(5, banned=(KEYS[9],), attempt=2), range(5), before))
    assert object_to(make_seal(5, banned=(KEYS[8], KEYS[9]), attempt=3), range(5), before) is None


def test_two_seals_of_one_history() -> None:
    """Of one round they are the same; of two the earlier roster vouches for the later seal."""
    signers = frozenset(KEYS[:3])
    assert agrees(CONFIG, make_seal(2), DIGEST, make_seal(2), frozenset())
    assert not agrees(CONFIG, make_seal(2), DIGEST, make_seal(2, q=b"o" * 32), signers)
    assert agrees(CONFIG, make_seal(2), DIGEST, make_seal(9), signers)
    assert not agrees(CONFIG, make_seal(2, range(6, 11)), DIGEST, make_seal(9), signers)
