"""Evidence survives the way to disk and back; whatever is not evidence is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.strategies import counts, envelopes, ids, tuples

from btard.errors import RemoteProtocolError
from btard.rules.evidence import (
    AnyProof,
    AttestProof,
    Cause,
    CertificateProof,
    CommitOpening,
    ConclusionProof,
    ConfirmOpening,
    Departure,
    DepartureKind,
    EquivocationProof,
    MarksProof,
    RevealProof,
    StateProof,
    VoteProof,
)
from btard.rules.messages import MAX_HEADER
from btard.wire import MAX_MESSAGE, decode, encode

pairs = tuples(st.tuples(ids, ids))
headers = st.binary(max_size=MAX_HEADER + 72)
openings = st.one_of(
    st.builds(CommitOpening, st.just(b"") | ids, tuples(envelopes), tuples(envelopes), tuples(envelopes), counts),
    st.builds(ConfirmOpening, tuples(envelopes), tuples(envelopes), tuples(envelopes)),
)
proofs = st.one_of(
    st.builds(EquivocationProof, headers, headers),
    st.builds(RevealProof, envelopes, envelopes),
    st.builds(
        VoteProof,
        st.sampled_from(["gradient", "report"]),
        counts,
        ids,
        st.just(b"") | ids,
        counts,
        openings,
        tuples(envelopes),
        tuples(envelopes),
    ),
    st.builds(CertificateProof, tuples(envelopes), tuples(envelopes)),
    st.builds(ConclusionProof, tuples(envelopes), tuples(envelopes)),
    st.builds(AttestProof, counts, pairs, tuples(envelopes), tuples(envelopes), tuples(envelopes)),
    st.builds(StateProof, tuples(envelopes)),
    st.builds(MarksProof, pairs, tuples(envelopes)),
)
departures = st.builds(
    Departure, ids, counts, counts, st.sampled_from(DepartureKind), st.sampled_from(Cause), st.none() | proofs
)


@given(departures)
def test_departure_survives_the_round_trip(departure: Departure) -> None:
    """A line of the ledger is read back as it was written, proof included."""
    assert decode(encode(departure), Departure) == departure


@given(st.binary(max_size=200))
def test_random_bytes_are_no_proof(data: bytes) -> None:
    """Evidence comes from peers too: only RemoteProtocolError comes out of the decoder."""
    with pytest.raises(RemoteProtocolError):
        decode(data, AnyProof)


def test_whatever_fits_on_the_wire_can_become_evidence() -> None:
    """A promise and its breach may be as long as any message."""
    largest = bytes(MAX_MESSAGE)
    proof = RevealProof(largest, largest)
    assert decode(encode(proof), RevealProof, limit=3 * MAX_MESSAGE) == proof


def test_proof_of_one_kind_is_not_read_as_another() -> None:
    """The tag decides."""
    proof = encode(EquivocationProof(b"one", b"two"))
    with pytest.raises(RemoteProtocolError):
        decode(proof, RevealProof)
