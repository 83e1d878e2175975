"""Contact records are their owner's, for one key and run, in force, and small; nothing else opens."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btard.dht import MAX_LIFETIME_MS, MAX_RECORD_BYTES, Contact, contact_key, open_contact, sign_contact
from btard.errors import ConfigError
from btard.identity import Identity

RUN = b"r" * 32
NOW = 1_800_000_000_000
OWNER = Identity(b"o" * 32)
KEY = contact_key(RUN, OWNER.peer_id)
ADDRESSES = [("192.0.2.7", 4000), ("peer.example.org", 4001), ("2001:db8::7", 4000)]


def record_of(sequence: int = 5, expires_ms: int = NOW + 1000) -> bytes:
    """Return a record of OWNER with the usual addresses."""
    return sign_contact(OWNER, RUN, ADDRESSES, sequence, expires_ms)


def signed(body: bytes) -> bytes:
    """Return a record whose signature is right, whatever its body."""
    covered = b"btard dht contact 1" + len(RUN).to_bytes(2, "little") + RUN + body
    return OWNER.sign(covered) + body


def test_a_record_opens_to_what_its_owner_signed() -> None:
    """Peer, addresses in order, sequence and expiry come back."""
    assert open_contact(RUN, KEY, record_of(), NOW) == Contact(OWNER.peer_id, tuple(ADDRESSES), 5, NOW + 1000)


def test_a_record_is_refused_under_any_other_key() -> None:
    """A record cannot be planted where another peer is looked up."""
    other = contact_key(RUN, Identity(b"x" * 32).peer_id)
    assert open_contact(RUN, other, record_of(), NOW) is None


def test_a_record_of_another_run_is_refused() -> None:
    """The run is part of the key and of the signature."""
    foreign = b"s" * 32
    assert open_contact(foreign, KEY, record_of(), NOW) is None
    assert open_contact(foreign, contact_key(foreign, OWNER.peer_id), record_of(), NOW) is None


@pytest.mark.parametrize(
    ("age_ms", "is_valid"),
    [(999, True), (1000, False), (5000, False), (1000 - MAX_LIFETIME_MS, True), (999 - MAX_LIFETIME_MS, False)],
)
def test_a_record_is_in_force_from_an_hour_before_its_expiry(age_ms: int, is_valid: bool) -> None:
    """Expired records and ones that claim a longer life than the cap are refused."""
    assert (open_contact(RUN, KEY, record_of(), NOW + age_ms) is not None) is is_valid


@settings(deadline=None)
@given(position=st.integers(0, len(record_of()) - 1), change=st.integers(1, 255))
def test_a_record_with_any_byte_changed_is_refused(position: int, change: int) -> None:
    """The signature covers every byte."""
    forged = bytearray(record_of())
    forged[position] ^= change
    assert open_contact(RUN, KEY, bytes(forged), NOW) is None


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=2000), st.integers(), st.none(), st.lists(st.integers()), st.text()))
def test_nothing_that_arrives_raises(junk: object) -> None:
    """Any value of any type is refused quietly."""
    assert open_contact(RUN, KEY, junk, NOW) is None


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(
            st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40), st.text(max_size=40), st.none(), st.floats()
        ),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=20,
    )
)
def test_a_well_signed_body_of_the_wrong_shape_is_refused(body: object) -> None:
    """A valid signature excuses no wrong type."""
    assert open_contact(RUN, KEY, signed(msgspec.msgpack.encode(body)), NOW) is None


@pytest.mark.parametrize(
    "address",
    [("", 1), ("a", 0), ("a", 65536), ("a", True), ("a" * 254, 1), ("a b", 1), ("a\n", 1), ("ä", 1), (b"a", 1), ("a",)],
)
def test_a_well_signed_record_with_an_odd_address_is_refused(address: object) -> None:
    """Hosts are short, plain names or literals; ports are numbers from 1 to 65535."""
    body = msgspec.msgpack.encode([1, OWNER.peer_id, [address], 5, NOW + 1000])
    assert open_contact(RUN, KEY, signed(body), NOW) is None


def test_depth_and_declared_lengths_cost_nothing() -> None:
    """Deep nesting and lengths of 4 GiB in a signed body are refused, not followed."""
    for body in (b"\x91" * 900, b"\xdd\xff\xff\xff\xff", b"\x95\x01\xc6\xff\xff\xff\xff", b"\x81" * 900):
        assert open_contact(RUN, KEY, signed(body), NOW) is None


def test_a_record_above_the_size_cap_is_refused() -> None:
    """Size is checked whatever the content says, and the largest record that can be signed fits."""
    assert open_contact(RUN, KEY, record_of() + bytes(MAX_RECORD_BYTES), NOW) is None
    assert len(sign_contact(OWNER, RUN, [("a" * 100, 65535)] * 8, 2**62, NOW)) <= MAX_RECORD_BYTES


@pytest.mark.parametrize("addresses", [[], [("a", 1)] * 9, [("a", 0)], [("bad host", 1)], [("a" * 250, 1)] * 8])
def test_addresses_that_make_no_record_are_our_own_mistake(addresses: list[tuple[str, int]]) -> None:
    """Signing refuses what every reader would refuse."""
    with pytest.raises(ConfigError, match="cannot announce"):
        sign_contact(OWNER, RUN, addresses, 1, NOW)
