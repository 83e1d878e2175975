"""Chains: a view and a ballot of one member, with the word of those who took them in time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.strategies import ALICE, MALLORY, RUN

from btard.errors import RemoteProtocolError
from btard.identity import Identity
from btard.rules.messages import Ballot, Phase, Position, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.wire import MAX_CHAIN, MAX_MESSAGE, Cast, encode, open_chain, sign_message
from btard.wire.chains import Chain, Countersignature

BOB = Identity(b"b" * 32)
MEMBERS = Roster.of([ALICE.peer_id, BOB.peer_id, MALLORY.peer_id])
ROSTER = MEMBERS.digest
STAGE = Stage(0, 3, Phase.VIEW, 1)


def sign_view(identity: Identity = ALICE, stage: Stage = STAGE, supplied: tuple[bytes, ...] = ()) -> SignedMessage:
    """A view that holds nothing."""
    view = View(Position(1, 3, 2, 0), True, (), supplied, (), b"", (), resumed=False)
    return sign_message(identity, RUN, ROSTER, stage, b"", view)


def sign_ballot(identity: Identity = ALICE, stage: Stage = STAGE, roster: bytes = ROSTER) -> SignedMessage:
    """A ballot of the same recovery."""
    return sign_message(identity, RUN, roster, stage._replace(phase=Phase.BALLOT), b"", Ballot((), b"v" * 32))


CAST = Cast(sign_view(), sign_ballot())


def test_chain_survives_the_round_trip() -> None:
    """View, ballot and every countersignature come back, and the sender counts as a signer."""
    cast = CAST.countersigned(BOB).countersigned(MALLORY)
    assert open_chain(RUN, MEMBERS, cast.encode()) == cast
    assert cast.signers == {ALICE.peer_id, BOB.peer_id, MALLORY.peer_id}
    assert open_chain(RUN, MEMBERS, CAST.encode()).signers == {ALICE.peer_id}


@pytest.mark.parametrize(
    ("view", "ballot"),
    [
        (sign_view(), sign_ballot(BOB)),
        (sign_view(), sign_ballot(stage=STAGE._replace(serial=2))),
        (sign_view(), sign_ballot(stage=STAGE._replace(attempt=4))),
        (sign_view(), sign_ballot(roster=b"o" * 32)),
        (sign_ballot(), sign_ballot()),
        (sign_ballot(), sign_view()),
    ],
    ids=["other sender", "other serial", "other attempt", "other roster", "two ballots", "swapped"],
)
def test_chain_about_something_else_is_refused(view: SignedMessage, ballot: SignedMessage) -> None:
    """Both messages must be those of one member in one recovery."""
    with pytest.raises(RemoteProtocolError, match="something else"):
        open_chain(RUN, MEMBERS, Cast(view, ballot).encode())


def test_countersignature_of_another_value_is_refused() -> None:
    """Bob's word for one view cannot be moved to another."""
    other = Cast(sign_view(supplied=(b"x",)), sign_ballot()).countersigned(BOB)
    with pytest.raises(RemoteProtocolError, match="bad countersignature"):
        open_chain(RUN, MEMBERS, Cast(CAST.view, CAST.ballot, other.signatures).encode())


def test_message_signature_is_no_countersignature() -> None:
    """The tag keeps the uses of a key apart."""
    plain = {BOB.peer_id: BOB.sign(CAST.value)}
    with pytest.raises(RemoteProtocolError, match="bad countersignature"):
        open_chain(RUN, MEMBERS, Cast(CAST.view, CAST.ballot, plain).encode())


def test_word_of_a_stranger_is_refused_before_it_is_verified() -> None:
    """Whoever is no member countersigns nothing, well signed or not; nor does a stranger's view get so far."""
    stranger = Identity(b"s" * 32)
    for cast in (CAST.countersigned(stranger), Cast(CAST.view, CAST.ballot, {stranger.peer_id: bytes(64)})):
        with pytest.raises(RemoteProtocolError, match="no member"):
            open_chain(RUN, MEMBERS, cast.encode())
    with pytest.raises(RemoteProtocolError, match="no member"):
        open_chain(RUN, MEMBERS, Cast(sign_view(stranger), sign_ballot(stranger)).encode())


def test_chain_of_another_roster_is_nothing() -> None:
    """What was said to those who were members before is no fault of whoever passes it on late."""
    fewer = MEMBERS.without([MALLORY.peer_id])
    assert open_chain(RUN, fewer, CAST.countersigned(MALLORY).encode()) is None


@given(st.binary(max_size=300))
def test_random_bytes_are_no_chain(data: bytes) -> None:
    """Only RemoteProtocolError comes out."""
    with pytest.raises(RemoteProtocolError):
        open_chain(RUN, MEMBERS, data)


def test_largest_chain_fits_and_nothing_longer_is_decoded() -> None:
    """The largest view with the countersignatures of 256 members is below the limit."""
    words = (Countersignature(BOB.peer_id, bytes(64)),) * 256
    ballot = sign_message(ALICE, RUN, ROSTER, STAGE, b"", Ballot((b"p" * 32,) * 256, b"v" * 32)).envelope
    assert len(encode(Chain(bytes(MAX_MESSAGE), ballot, words))) <= MAX_CHAIN
    with pytest.raises(RemoteProtocolError, match="longer"):
        open_chain(RUN, MEMBERS, bytes(MAX_CHAIN + 1))
