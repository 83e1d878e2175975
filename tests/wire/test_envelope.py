"""Signed envelopes: what was signed comes back, whatever was changed is refused."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.strategies import ALICE, MALLORY, PAYLOADS, ROSTER, RUN, optional_digests, plain, statements

from btard.errors import RemoteProtocolError
from btard.identity import Context, PeerId, digest
from btard.rules.messages import (
    MAX_MARKED,
    PAYLOAD_OF_PHASE,
    AnyPayload,
    Check,
    Halt,
    Holding,
    Phase,
    Position,
    Report,
    Reveal,
    Stage,
    View,
)
from btard.rules.recovery import ALL_VIEWS, LARGEST, compute_largest
from btard.wire import encode, open_header, open_message, prove_equivocation, sign_message, take_header
from btard.wire.envelope import ENVELOPE_TAG, Envelope, Header

NONCE = b"n" * 32
STAGE = Stage(7, 2, Phase.REVEAL)
MESSAGE = sign_message(ALICE, RUN, ROSTER, STAGE, b"t" * 32, Reveal(NONCE, (1, 2)))


def open_or_none(data: bytes, run_id: bytes = RUN) -> object:
    """The opened message, or None where it is refused; any other exception fails the test."""
    try:
        return open_message(run_id, data)
    except RemoteProtocolError:
        return None


def sign_fields(*fields: object, said: bytes = b"") -> bytes:
    """An envelope correctly signed by Mallory over any header."""
    header = msgpack.packb(list(fields))
    return encode(Envelope(header, MALLORY.sign(ENVELOPE_TAG + header), said))


def list_fields(stage: Stage, payload: AnyPayload) -> tuple[list[object], bytes]:
    """The fields of a header by Mallory, and the payload that it names."""
    said = encode(payload)
    name = digest(Context.PAYLOAD, said)
    return msgpack.unpackb(encode(Header(RUN, ROSTER, *map(int, stage), MALLORY.peer_id, b"", name))), said


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
def test_any_header_signed_by_a_cheat_is_contained(fields: list[object]) -> None:
    """A valid signature over an arbitrary header buys nothing but a message or RemoteProtocolError."""
    open_or_none(sign_fields(*fields))


@settings(max_examples=100)
@given(statements, st.data())
def test_header_with_one_field_replaced_and_signed_anew_is_contained(
    statement: tuple[Stage, AnyPayload], data: st.DataObject
) -> None:
    """A cheat may sign anything in the place of any field: the outcome is a message or RemoteProtocolError."""
    fields, said = list_fields(*statement)
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(plain)
    open_or_none(sign_fields(*fields, said=said))


@settings(max_examples=100)
@given(statements, plain)
def test_any_payload_signed_by_a_cheat_is_contained(statement: tuple[Stage, AnyPayload], content: object) -> None:
    """A header may name any bytes as its payload."""
    fields, _ = list_fields(*statement)
    said = msgpack.packb(content)
    fields[-1] = digest(Context.PAYLOAD, said)
    open_or_none(sign_fields(*fields, said=said))


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
    """One byte after the envelope, or after the header or the payload within it, is one too many."""
    assert open_or_none(MESSAGE.envelope + b"\x00") is None
    header, signature, said = msgpack.unpackb(MESSAGE.envelope)
    assert open_or_none(encode(Envelope(header, signature, said + b"\x00"))) is None
    header += b"\x00"
    assert open_or_none(encode(Envelope(header, ALICE.sign(ENVELOPE_TAG + header), said))) is None


def test_another_payload_under_a_signed_header_is_refused() -> None:
    """The header names its payload by digest."""
    header, signature, _ = msgpack.unpackb(MESSAGE.envelope)
    with pytest.raises(RemoteProtocolError, match="another payload"):
        open_message(RUN, encode(Envelope(header, signature, encode(Reveal(NONCE, (1,))))))


@pytest.mark.parametrize("size", [0, 1, 200, 255, 256, 300, 65_535, 65_536, 70_000])
def test_an_envelope_has_one_length(size: int) -> None:
    """The layer that nobody signs cannot be padded: what counts by its length counts with everybody or nobody."""
    view = View(Position(1, 0, 0, 0), False, (), (bytes(size),), (), b"", (), False)
    message = sign_message(ALICE, RUN, ROSTER, Stage(0, 3, Phase.VIEW), b"", view)
    assert open_message(RUN, message.envelope) == message
    header, signature, said = msgpack.unpackb(message.envelope)
    bins = [b"\xc6" + len(item).to_bytes(4, "big") + item for item in (header, signature, said)]
    short = [msgpack.packb(item) for item in (header, signature, said)]
    for array in (b"\x93", b"\xdc\x00\x03", b"\xdd\x00\x00\x00\x03"):
        for padded in range(8):
            items = [bins[k] if padded >> k & 1 else short[k] for k in range(3)]
            if (data := array + b"".join(items)) != message.envelope:
                with pytest.raises(RemoteProtocolError, match="shortest"):
                    open_message(RUN, data)


def test_a_header_alone_proves_its_slot() -> None:
    """Taken from a message it opens without the payload, to the same slot and digest; changed it does not."""
    header = take_header(MESSAGE)
    assert open_header(RUN, header.encoded) == header
    assert (header.slot, header.digest, header.sender) == (MESSAGE.slot, MESSAGE.digest, ALICE.peer_id)
    for index in range(len(header.encoded)):
        changed = bytearray(header.encoded)
        changed[index] ^= 1
        with pytest.raises(RemoteProtocolError):
            open_header(RUN, bytes(changed))
    with pytest.raises(RemoteProtocolError, match="another run"):
        open_header(b"\x09" * 32, header.encoded)


@given(st.binary(max_size=400))
def test_random_bytes_are_no_header(data: bytes) -> None:
    """Random bytes are refused with RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        open_header(RUN, data)


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


def test_header_under_the_signature_of_somebody_else_is_refused() -> None:
    """Mallory's signature under a header that names Alice does not make it Alice's."""
    header, _, said = msgpack.unpackb(MESSAGE.envelope)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(header, MALLORY.sign(ENVELOPE_TAG + header), said)))


def test_headers_swapped_between_two_envelopes_are_refused() -> None:
    """A signature belongs to one header."""
    other = sign_message(ALICE, RUN, ROSTER, STAGE, b"", Reveal(b"o" * 32, ()))
    (header, _, said), (_, signature, _) = msgpack.unpackb(MESSAGE.envelope), msgpack.unpackb(other.envelope)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(header, signature, said)))


def test_signature_without_the_tag_is_refused() -> None:
    """A signature made for another purpose over the same bytes does not count (attacks C9)."""
    header, _, said = msgpack.unpackb(MESSAGE.envelope)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(header, ALICE.sign(header), said)))


@pytest.mark.parametrize("sender", [b"\x00" * 32, b"\x01" + b"\x00" * 31, b"\xff" * 32], ids=lambda key: key[:2].hex())
def test_keys_of_small_order_or_off_the_curve_sign_nothing(sender: bytes) -> None:
    """A sender whose key is no proper Ed25519 key is refused like any bad signature."""
    said = encode(Reveal(NONCE, ()))
    header = msgpack.packb([RUN, ROSTER, 7, 2, 3, 0, sender, b"", digest(Context.PAYLOAD, said)])
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(header, sender + b"\x00" * 32, said)))


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
    said = encode(changes["payload"] if field == "payload" else fields["payload"])
    changes["payload"] = digest(Context.PAYLOAD, said)
    fields["payload"] = digest(Context.PAYLOAD, encode(fields["payload"]))
    signature = ALICE.sign(ENVELOPE_TAG + encode(Header(**fields)))
    changed = encode(Header(**(fields | {"run_id": RUN} | {field: changes[field]})))
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        open_message(RUN, encode(Envelope(changed, signature, said)))


def test_refusal_blames_nobody_whose_signature_was_not_verified() -> None:
    """Anyone can write a header that names Alice, so a bad signature is not held against her."""
    header, _, said = msgpack.unpackb(MESSAGE.envelope)
    with pytest.raises(RemoteProtocolError) as caught:
        open_message(RUN, encode(Envelope(header, MALLORY.sign(ENVELOPE_TAG + header), said)))
    assert caught.value.peer is None


def test_digest_is_that_of_the_header_not_of_the_signature() -> None:
    """Two signatures over one header are no equivocation: equivocation means different signed bytes (attacks C9)."""
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


@pytest.mark.parametrize("members", [4, 16, 64, 256])
def test_the_largest_honest_halt_and_view_count(members: int) -> None:
    """Whatever a member has to say in a recovery fits into what counts there."""
    position, ids = Position(2**40, 2**20, 5, 7), tuple(bytes([k % 256]) * 32 for k in range(members))
    proof = encode(prove_equivocation(MESSAGE, MESSAGE))
    halt = sign_message(ALICE, RUN, ROSTER, Stage(0, 2**20, Phase.HALT, 7), b"", Halt(position, ids, (proof,) * 4))
    marks = tuple(range(members**2))[-min(MAX_MARKED, members**2 // 4) :]
    view = View(position, True, (Holding(position, ids),) * 2, (), (proof,) * 4, halt.envelope, marks, False)
    signed = sign_message(ALICE, RUN, ROSTER, Stage(0, 3, Phase.VIEW), b"", view)
    assert len(halt.envelope) <= compute_largest(Phase.HALT, members)
    assert len(signed.envelope) <= compute_largest(Phase.VIEW, members) <= LARGEST
    assert open_message(RUN, signed.envelope) == signed


def test_all_views_fit_into_one_frame() -> None:
    """What was settled can be told, whatever up to 56 members put into their views."""
    assert all(n * compute_largest(Phase.VIEW, n) <= ALL_VIEWS for n in range(1, 57))


def test_sender_of_an_opened_message_is_who_signed_it() -> None:
    """The slot's sender is the key that verified."""
    assert open_message(RUN, MESSAGE.envelope).sender == PeerId(ALICE.peer_id)
