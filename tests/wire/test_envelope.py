"""Signed envelopes: what was signed comes back, whatever was changed is refused."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.strategies import ALICE, MALLORY, PAYLOADS, ROSTER, RUN, optional_digests, plain, statements

from btard.errors import RemoteProtocolError
from btard.identity import Context, PeerId, digest
from btard.rules.messages import (
    PAYLOAD_OF_PHASE,
    AnyPayload,
    Check,
    Confirm,
    Holding,
    Phase,
    Position,
    Report,
    Reveal,
    Stage,
    View,
)
from btard.wire import MAX_MESSAGE, encode, open_message, sign_message
from btard.wire.envelope import ENVELOPE_TAG, Body, Envelope

NONCE = b"n" * 32
STAGE = Stage(7, 2, Phase.REVEAL)
MESSAGE = sign_message(ALICE, RUN, ROSTER, STAGE, b"t" * 32, Reveal(NONCE, (1, 2)))


def open_or_none(data: bytes, run_id: bytes = RUN) -> object:
    """The opened message, or None where it is refused; any other exception fails the test."""
    try:
        return open_message(run_id, data)
    except RemoteProtocolError:
        return None


def sign_body(*fields: object) -> bytes:
    """An envelope correctly signed by Mallory over any body."""
    body = msgpack.packb(list(fields))
    return encode(Envelope(body, MALLORY.sign(ENVELOPE_TAG + body)))


@given(statements, optional_digests)
def test_every_message_survives_the_round_trip(statement: tuple[Stage, AnyPayload], previous: bytes) -> None:
    """open_message gives back slot, roster, transcript, payload, the same bytes and the same digest."""
    stage, payload = statement
    signed = sign_message(ALICE, RUN, ROSTER, stage, previous, payload)
    assert open_message(RUN, signed.envelope) == signed
    assert (signed.slot.stage, signed.sender, signed.payload, signed.previous) == (
        stage,
        ALICE.peer_id,
        payload,
        previous,
    )


@given(st.binary(max_size=400))
def test_random_bytes_are_contained(data: bytes) -> None:
    """Random bytes are refused with RemoteProtocolError."""
    assert open_or_none(data) is None


@settings(max_examples=60)
@given(st.lists(plain, max_size=12))
def test_any_body_signed_by_a_cheat_is_contained(fields: list[object]) -> None:
    """A valid signature over an arbitrary body buys nothing but a message or RemoteProtocolError."""
    open_or_none(sign_body(*fields))


@settings(max_examples=100)
@given(statements, st.data())
def test_body_with_one_field_replaced_and_signed_anew_is_contained(
    statement: tuple[Stage, AnyPayload], data: st.DataObject
) -> None:
    """A cheat may sign anything in the place of any field: the outcome is a message or RemoteProtocolError."""
    stage, payload = statement
    fields = msgpack.unpackb(encode(Body(RUN, ROSTER, *map(int, stage), MALLORY.peer_id, b"", payload)))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(plain)
    open_or_none(sign_body(*fields))


@pytest.mark.parametrize("length", range(len(MESSAGE.envelope)))
def test_envelope_cut_short_at_any_byte_is_refused(length: int) -> None:
    """No proper prefix of an envelope opens."""
    assert open_or_none(MESSAGE.envelope[:length]) is None


def test_envelope_with_any_single_bit_flipped_is_refused() -> None:
    """No single bit of an envelope can change without the signature or the format failing."""
    for index in range(len(MESSAGE.envelope)):
        for bit in range(8):
            changed = bytearray(MESSAGE.envelope)
            changed[index] ^= 1 << bit
            assert open_or_none(bytes(changed)) is None, (index, bit)


def test_trailing_bytes_are_refused() -> None:
    """One byte after the envelope, or after the body within it, is one too many."""
    assert open_or_none(MESSAGE.envelope + b"\x00") is None
    body = msgpack.unpackb(MESSAGE.envelope)[0] + b"\x00"
    assert open_or_none(encode(Envelope(body, ALICE.sign(ENVELOPE_TAG + body)))) is None


def test_message_of_another_run_is_refused() -> None:
    """A message cannot be replayed in another run."""
    with pytest.raises(RemoteProtocolError, match="another run"):
        open_message(b"\x09" * 32, MESSAGE.envelope)


@pytest.mark.parametrize("phase", list(Phase))
def test_payload_of_another_phase_is_refused(phase: Phase) -> None:
    """A payload counts only in its own phase, even under a valid signature."""
    message = sign_message(ALICE, RUN, ROSTER, Stage(7, 2, phase), b"", Reveal(NONCE, ()))
    if phase is Phase.REVEAL:
        assert open_message(RUN, message.envelope) == message
    else:
        with pytest.raises(RemoteProtocolError, match="another phase"):
            open_message(RUN, message.envelope)


def test_body_under_the_signature_of_somebody_else_is_refused() -> None:
    """Mallory's signature under a body that names Alice does not make it Alice's."""
    body = msgpack.unpackb(MESSAGE.envelope)[0]
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(body, MALLORY.sign(ENVELOPE_TAG + body))))


def test_bodies_swapped_between_two_envelopes_are_refused() -> None:
    """A signature belongs to one body."""
    other = sign_message(ALICE, RUN, ROSTER, STAGE, b"", Reveal(b"o" * 32, ()))
    (body, _), (_, signature) = msgpack.unpackb(MESSAGE.envelope), msgpack.unpackb(other.envelope)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(body, signature)))


def test_signature_without_the_tag_is_refused() -> None:
    """A signature made for another purpose over the same bytes does not count (attacks C9)."""
    body = msgpack.unpackb(MESSAGE.envelope)[0]
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(body, ALICE.sign(body))))


@pytest.mark.parametrize("sender", [b"\x00" * 32, b"\x01" + b"\x00" * 31, b"\xff" * 32], ids=lambda key: key[:2].hex())
def test_keys_of_small_order_or_off_the_curve_sign_nothing(sender: bytes) -> None:
    """A sender whose key is no proper Ed25519 key is refused like any bad signature."""
    body = msgpack.packb([RUN, ROSTER, 7, 2, 3, 0, sender, b"", [3, NONCE, []]])
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(body, sender + b"\x00" * 32)))


@pytest.mark.parametrize("field", ["run_id", "roster", "round", "attempt", "serial", "sender", "previous", "payload"])
def test_signature_covers_every_field(field: str) -> None:
    """Whatever field changes, the old signature no longer fits."""
    changes = {
        "run_id": RUN,
        "roster": b"\x0b" * 32,
        "round": 8,
        "attempt": 3,
        "serial": 1,
        "sender": MALLORY.peer_id,
        "previous": b"",
        "payload": Reveal(NONCE, (1,)),
    }
    fields = {
        "run_id": b"\x0a" * 32,
        "roster": ROSTER,
        "round": 7,
        "attempt": 2,
        "phase": 3,
        "serial": 0,
        "sender": ALICE.peer_id,
        "previous": b"t" * 32,
        "payload": Reveal(NONCE, (1, 2)),
    }
    signature = ALICE.sign(ENVELOPE_TAG + encode(Body(**fields)))
    changed = encode(Body(**(fields | {"run_id": RUN} | {field: changes[field]})))
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(changed, signature)))


def test_refusal_blames_nobody_whose_signature_was_not_verified() -> None:
    """Anyone can write a body that names Alice, so a bad signature is not held against her."""
    body = msgpack.unpackb(MESSAGE.envelope)[0]
    with pytest.raises(RemoteProtocolError) as caught:
        open_message(RUN, encode(Envelope(body, MALLORY.sign(ENVELOPE_TAG + body))))
    assert caught.value.peer is None


def test_digest_is_that_of_the_body_not_of_the_signature() -> None:
    """Two signatures over one body are no equivocation: equivocation means different signed bytes (attacks C9)."""
    assert MESSAGE.digest == digest(Context.MESSAGE, msgpack.unpackb(MESSAGE.envelope)[0])


def test_every_phase_has_its_payload_and_its_strategy() -> None:
    """No payload kind escapes the properties of this file."""
    assert set(PAYLOAD_OF_PHASE) == set(Phase) == set(PAYLOADS)
    assert all(kind.__struct_config__.tag == int(phase) for phase, kind in PAYLOAD_OF_PHASE.items())


def sign_largest_check(members: int) -> bytes:
    """A CHECK with ten projections on every one of ``members`` parts."""
    reports = (Report((-1.2345678901234567,) * 10, 12.5),) * members
    return sign_message(ALICE, RUN, ROSTER, Stage(2**40, 2**20, Phase.CHECK), NONCE, Check(reports, NONCE)).envelope


def test_check_of_64_members_stays_far_below_the_limit() -> None:
    """64 parts with 10 projections each take about 6.5 kB, so a transcript of them fits into one message."""
    assert len(sign_largest_check(64)) < 7_000


def test_view_that_supplies_two_stages_of_64_members_fits() -> None:
    """The largest honest message, a VIEW with all of CHECK and of CONFIRM, is below MAX_MESSAGE and opens."""
    confirm = sign_message(ALICE, RUN, ROSTER, Stage(1, 0, Phase.CONFIRM), NONCE, Confirm(NONCE, (NONCE,) * 64))
    position = Position(2**40, 2**20, 5, 7)
    view = View(
        position,
        True,
        (Holding(position, (NONCE,) * 64),) * 2,
        (sign_largest_check(64),) * 64 + (confirm.envelope,) * 64,
        (MESSAGE.envelope * 2,) * 4,
        MESSAGE.envelope,
        tuple(range(1000, 2024)),
        False,
    )
    signed = sign_message(ALICE, RUN, ROSTER, Stage(0, 3, Phase.VIEW), b"", view)
    assert len(signed.envelope) <= MAX_MESSAGE
    assert open_message(RUN, signed.envelope) == signed


def test_sender_of_an_opened_message_is_who_signed_it() -> None:
    """The slot's sender is the key that verified."""
    assert open_message(RUN, MESSAGE.envelope).sender == PeerId(ALICE.peer_id)
