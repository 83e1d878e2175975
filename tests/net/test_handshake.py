"""The handshake without a network: who gets through, and that every other byte is refused."""

import random
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection
from tests.net.raw_peer import SMALL_ORDER

from btard.errors import Refused, RemoteProtocolError
from btard.identity import Identity
from btard.net import MAX_CONTROL, Terms, check_terms, handshake
from btard.net.frames import MAX_FRAME, FrameType
from btard.net.handshake import PROLOGUE, PROTOCOL, Credentials, Handshake, Introduction

TERMS = Terms(b"run", {"tau": bytes(8)})
ALICE, BOB, EVE = (Credentials(Identity(bytes([number]) * 32), TERMS) for number in range(3))


def exchange(alice: Credentials, bob: Credentials) -> tuple[Handshake, Handshake, Introduction, Introduction]:
    """Return both ends of a completed handshake and what each learnt."""
    dialler, answerer = Handshake(alice, is_dialler=True), Handshake(bob, is_dialler=False)
    answerer.read(dialler.write())
    about_bob = dialler.read_introduction(answerer.write(bob.introduce(0)))
    about_alice = answerer.read_introduction(dialler.write(alice.introduce(5)))
    return dialler, answerer, about_bob, about_alice


def test_both_learn_who_the_other_is():
    """Each side gets the other's identity, terms and serial."""
    _, _, about_bob, about_alice = exchange(ALICE, BOB)
    assert (about_bob.peer, about_bob.terms, about_bob.serial) == (BOB.peer_id, TERMS, 0)
    assert (about_alice.peer, about_alice.terms, about_alice.serial) == (ALICE.peer_id, TERMS, 5)


def test_the_keys_match_and_differ_by_direction():
    """What one side seals the other opens; the two directions have different keys."""
    dialler, answerer, _, _ = exchange(ALICE, BOB)
    send, _ = dialler.split()
    wrong, receive = answerer.split()
    frame = send.seal(FrameType.CONTROL, b"hello", memoryview(bytearray(MAX_FRAME)))
    assert receive.open(bytes(frame[:4]), frame[4:]) == b"hello"
    with pytest.raises(RemoteProtocolError):
        wrong.open(bytes(frame[:4]), frame[4:])


def test_every_handshake_has_new_keys():
    """Two handshakes of the same peers share nothing."""
    frames = []
    for _ in range(2):
        send, _ = exchange(ALICE, BOB)[0].split()
        frames.append(bytes(send.seal(FrameType.CONTROL, b"hello", memoryview(bytearray(MAX_FRAME)))))
    assert frames[0] != frames[1]


def test_a_borrowed_identity_is_noticed():
    """Bob's introduction, replayed by Eve over her own Noise key, does not pass for Bob."""
    dialler, eve = Handshake(ALICE, is_dialler=True), Handshake(EVE, is_dialler=False)
    eve.read(dialler.write())
    with pytest.raises(RemoteProtocolError, match="did not sign"):
        dialler.read_introduction(eve.write(BOB.introduce(0)))


def test_a_signature_for_another_run_is_noticed():
    """A signature is good for the run it was made for only."""
    eve = Handshake(BOB, is_dialler=False)
    dialler = Handshake(ALICE, is_dialler=True)
    eve.read(dialler.write())
    forged = msgspec.structs.replace(msgspec.msgpack.decode(BOB.introduce(0), type=Introduction), run_id=b"other")
    with pytest.raises(RemoteProtocolError, match="did not sign"):
        dialler.read_introduction(eve.write(msgspec.msgpack.encode(forged)))


def test_another_version_of_the_protocol_fails():
    """Peers whose prologues differ cannot complete a handshake."""
    other = NoiseConnection.from_name(PROTOCOL)
    other.set_as_responder()
    other.set_prologue(PROLOGUE + b"0")
    other.set_keypair_from_private_bytes(Keypair.STATIC, bytes(range(32)))
    other.start_handshake()
    dialler = Handshake(ALICE, is_dialler=True)
    other.read_message(dialler.write())
    with pytest.raises(RemoteProtocolError):
        dialler.read_introduction(bytes(other.write_message(b"")))


@given(st.binary(max_size=200))
def test_any_first_message_is_read_or_rejected(message):
    """Any bytes for the first message give a payload or RemoteProtocolError."""
    answerer = Handshake(BOB, is_dialler=False)
    try:
        answerer.read(message)
        answerer.write(BOB.introduce(0))
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_key_that_shares_no_secret_is_refused(key):
    """A fresh key of small order is the mistake of whoever sent it, at the dialler and at who answers."""
    answerer = Handshake(BOB, is_dialler=False)
    answerer.read(key)
    with pytest.raises(RemoteProtocolError):
        answerer.write(BOB.introduce(0))
    dialler, answerer = Handshake(ALICE, is_dialler=True), Handshake(BOB, is_dialler=False)
    answerer.read(dialler.write())
    with pytest.raises(RemoteProtocolError):
        dialler.read_introduction(key + answerer.write(BOB.introduce(0))[len(key) :])


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_lasting_key_that_shares_no_secret_is_refused(key):
    """A static key of small order, well encrypted, is refused by who answers, and by the dialler."""
    dialler, answerer = Handshake(ALICE, is_dialler=True), Handshake(BOB, is_dialler=False)
    answerer._state.s.public_bytes = key
    answerer.read(dialler.write())
    with pytest.raises(RemoteProtocolError, match="message"):
        dialler.read(answerer.write(BOB.introduce(0)))
    dialler, answerer = Handshake(ALICE, is_dialler=True), Handshake(BOB, is_dialler=False)
    dialler._state.s.public_bytes = key
    answerer.read(dialler.write())
    dialler.read(answerer.write(BOB.introduce(0)))
    with pytest.raises(RemoteProtocolError, match="message"):
        answerer.read(dialler.write(ALICE.introduce(1)))


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_any_change_of_a_later_message_is_rejected(position, change, is_cut):
    """A second or third message with a byte changed, added or missing is RemoteProtocolError."""

    def spoil(message: bytes) -> bytes:
        at = position % len(message)
        return message[:at] if is_cut else message[:at] + bytes([message[at] ^ (change or 1)]) + message[at + 1 :]

    dialler, answerer = Handshake(ALICE, is_dialler=True), Handshake(BOB, is_dialler=False)
    answerer.read(dialler.write())
    second = answerer.write(BOB.introduce(0))
    dialler.read_introduction(second)
    third = dialler.write(ALICE.introduce(1))
    with pytest.raises(RemoteProtocolError):
        answerer.read_introduction(spoil(third))
    dialler = Handshake(ALICE, is_dialler=True)
    answerer = Handshake(BOB, is_dialler=False)
    answerer.read(dialler.write())
    with pytest.raises(RemoteProtocolError):
        dialler.read_introduction(spoil(answerer.write(BOB.introduce(0))))


@given(
    st.binary(max_size=300) | st.recursive(st.none() | st.binary(), st.lists, max_leaves=9).map(msgspec.msgpack.encode)
)
def test_any_introduction_is_read_or_rejected(payload):
    """Any payload, also a well-encrypted one, is an introduction within its limits or RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        handshake._decode(payload)


def test_deep_and_long_introductions_are_rejected():
    """Nesting and counts beyond the limits are RemoteProtocolError."""
    good = msgspec.msgpack.decode(BOB.introduce(0))
    many = {f"field {number}": bytes(8) for number in range(300)}
    for bad in [
        b"\x91" * 20_000 + b"\xc0",
        *([*good[:3], fields, 0] for fields in (many, {"x" * 65: bytes(8)}, {"x": b""})),
    ]:
        with pytest.raises(RemoteProtocolError):
            handshake._decode(bad if isinstance(bad, bytes) else msgspec.msgpack.encode(bad))
    mutator = random.Random(0)
    for _ in range(2000):
        spoilt = bytearray(BOB.introduce(0))
        spoilt[mutator.randrange(len(spoilt))] = mutator.randrange(256)
        with suppress(RemoteProtocolError):
            handshake._decode(bytes(spoilt))
    assert len(msgspec.msgpack.encode(good)) < MAX_CONTROL


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}, "run configuration differs in: a, b"),
        ({"a": b"1"}, {"a": b"1", "b\x1b[31m": b"1"}, "this peer belongs to another run"),
        ({}, {"a": b"1"}, "this peer belongs to another run"),
    ],
)
def test_terms_that_differ_are_refused(ours, theirs, message):
    """The message names the fields that both hold and that differ, else the run."""
    with pytest.raises(Refused) as refusal:
        check_terms(Terms(b"one", ours), Terms(b"two", theirs))
    assert str(refusal.value) == message
