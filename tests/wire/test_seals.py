"""Seals on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.strategies import ALICE, MALLORY, seals

from btard.errors import RemoteProtocolError
from btard.rules.seal import Seal
from btard.wire import compute_seal_digest, decode_seal, encode_seal, is_seal_signed_by, sign_seal
from btard.wire.envelope import ENVELOPE_TAG


@given(seals)
def test_seal_survives_the_round_trip(seal: Seal) -> None:
    """A seal decodes to itself, and its digest does not change on the way."""
    again = decode_seal(encode_seal(seal))
    assert again == seal
    assert compute_seal_digest(again) == compute_seal_digest(seal)


@given(seals, seals)
def test_different_seals_have_different_digests(one: Seal, other: Seal) -> None:
    """The digest names the whole tuple."""
    assert (compute_seal_digest(one) == compute_seal_digest(other)) == (one == other)


@given(seals, seals)
def test_signature_counts_for_its_signer_and_this_very_tuple(seal: Seal, other: Seal) -> None:
    """Neither another key nor another tuple fits a signature."""
    signature = sign_seal(ALICE, seal)
    assert is_seal_signed_by(ALICE.peer_id, seal, signature)
    assert not is_seal_signed_by(MALLORY.peer_id, seal, signature)
    assert is_seal_signed_by(ALICE.peer_id, other, signature) == (other == seal)


@given(seals)
def test_signature_of_an_envelope_is_not_one_of_a_seal(seal: Seal) -> None:
    """Seals and envelopes are signed under different tags."""
    assert not is_seal_signed_by(ALICE.peer_id, seal, ALICE.sign(ENVELOPE_TAG + encode_seal(seal)))
    assert not is_seal_signed_by(ALICE.peer_id, seal, b"short")


@given(st.binary(max_size=300))
def test_random_bytes_are_no_seal(data: bytes) -> None:
    """Only RemoteProtocolError comes out of the decoder."""
    with pytest.raises(RemoteProtocolError):
        decode_seal(data)


@given(seals, st.data())
def test_seal_cut_short_is_refused(seal: Seal, data: st.DataObject) -> None:
    """No prefix of a seal is a seal."""
    encoded = encode_seal(seal)
    with pytest.raises(RemoteProtocolError):
        decode_seal(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
