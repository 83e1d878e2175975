"""What a simulation remembers is what it would have found out."""

import pytest

from btard.identity import Identity, is_signed_by, keys
from btard.sim.memo import Memory
from btard.wire import envelope

ALICE, MALLORY = Identity(bytes(32)), Identity(b"\1" * 32)
DATA = b"what Alice signs"


def test_a_signature_is_known_only_for_its_key_and_bytes() -> None:
    """A valid one is valid, and a forged, moved or truncated one is verified and found out."""
    with Memory(lambda _: None).installed():
        asked = envelope.is_signed_by
        signature = ALICE.sign(DATA)
        assert asked is not is_signed_by
        assert asked(ALICE.peer_id, DATA, signature)
        assert not asked(MALLORY.peer_id, DATA, signature)
        assert not asked(ALICE.peer_id, DATA + b"!", signature)
        assert not asked(ALICE.peer_id, DATA, signature[:-1])
        assert not asked(ALICE.peer_id, DATA, bytes([signature[0] ^ 1]) + signature[1:])
    assert is_signed_by(ALICE.peer_id, DATA, signature)


def test_everything_is_put_back() -> None:
    """After a simulation, also one that failed, peers verify for themselves."""
    before = Identity.sign, envelope.is_signed_by
    with pytest.raises(ZeroDivisionError), Memory(lambda _: None).installed():
        assert Identity.sign is not before[0]
        raise ZeroDivisionError
    assert (Identity.sign, envelope.is_signed_by, keys.is_signed_by) == (*before, is_signed_by)
