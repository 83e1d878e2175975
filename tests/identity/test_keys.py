"""Ed25519 identities and the file they live in."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.errors import ConfigError
from btard.identity import (
    PEER_ID_SIZE,
    SIGNATURE_SIZE,
    Identity,
    is_signed_by,
    load_identity,
    load_or_create_identity,
    save_identity,
    short,
)

seeds = st.binary(min_size=32, max_size=32)
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def key_file(tmp_path):
    """A saved identity's path."""
    path = tmp_path / "identity.key"
    save_identity(Identity(b"\x05" * 32), path)
    return path


def test_the_standard_vector():
    """The key and the signature are those of RFC 8032, test 1."""
    identity = Identity(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert identity.peer_id.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert identity.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@given(seeds, st.binary(max_size=200))
def test_what_a_key_signs_verifies_under_its_peer_id_only(seed, data):
    """A signature belongs to one key."""
    identity, other = Identity(seed), Identity(bytes(byte ^ 1 for byte in seed))
    signature = identity.sign(data)
    assert len(signature) == SIGNATURE_SIZE
    assert is_signed_by(identity.peer_id, data, signature)
    assert not is_signed_by(other.peer_id, data, signature)


@given(seeds, st.binary(max_size=64), st.integers(0), st.integers(0, 7))
def test_one_flipped_bit_breaks_a_signature(seed, data, where, bit):
    """Neither the data nor the signature can be changed by a single bit."""
    identity = Identity(seed)
    signed = bytearray(identity.sign(data) + data)
    signed[where % len(signed)] ^= 1 << bit
    assert not is_signed_by(identity.peer_id, bytes(signed[SIGNATURE_SIZE:]), bytes(signed[:SIGNATURE_SIZE]))


@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=130))
def test_garbage_is_a_refusal_not_an_exception(peer, data, signature):
    """A peer's bytes of any length are either a valid signature or not."""
    assert not is_signed_by(peer, data, signature)


def test_a_signature_has_one_form():
    """Adding the group's order to S keeps the equation true, yet the strict verifier refuses the second form."""
    identity = Identity(b"\x03" * 32)
    signature = identity.sign(b"data")
    second = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not is_signed_by(identity.peer_id, b"data", signature[:32] + second.to_bytes(32, "little"))


@pytest.mark.parametrize("peer", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_of_small_order_signs_nothing(peer):
    """Under a degenerate key a signature without a secret would hold for any data."""
    assert not is_signed_by(peer, b"anything", b"\x01" + bytes(63))


def test_two_new_identities_differ():
    """New keys come from the operating system's randomness."""
    assert Identity.generate().peer_id != Identity.generate().peer_id


def test_the_secret_is_not_printed():
    """A log line with an identity in it shows the public name only."""
    identity = Identity(b"\x2a" * 32)
    assert repr(identity) == f"<Identity {short(identity.peer_id)}>"
    assert identity.seed.hex() not in repr(identity)


def test_a_short_name_has_eight_digits():
    """People compare eight hex digits."""
    assert short(bytes(range(PEER_ID_SIZE))) == "00010203"


def test_a_saved_identity_comes_back(tmp_path):
    """Saving and loading gives the same key."""
    identity = Identity.generate()
    save_identity(identity, tmp_path / "identity.key")
    assert load_identity(tmp_path / "identity.key").seed == identity.seed


def test_the_key_file_is_for_its_owner_only(tmp_path):
    """The file is born with mode 0600, even under an open umask."""
    before = os.umask(0)
    try:
        save_identity(Identity.generate(), tmp_path / "identity.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "identity.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(key_file):
    """Saving onto a key fails and leaves it as it was."""
    content = key_file.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        save_identity(Identity.generate(), key_file)
    assert key_file.read_bytes() == content


def test_an_impossible_directory_is_named(tmp_path):
    """The message names the path and what to change."""
    with pytest.raises(ConfigError, match="choose a writable directory"):
        save_identity(Identity.generate(), tmp_path / "missing" / "identity.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_key_that_others_may_touch_is_refused(key_file, mode):
    """The message says which command repairs it."""
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_identity(key_file)


def test_a_missing_key_is_named(tmp_path):
    """The message says how to make one."""
    with pytest.raises(ConfigError, match="btard-peer keygen"):
        load_identity(tmp_path / "identity.key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 40,
        b"btard-identity-1\n",
        b"btard-identity-1\n" + b"ab" * 31 + b"\n",
        b"btard-identity-1\n" + b"ab" * 33 + b"\n",
        b"btard-identity-1\n" + b"zz" * 32 + b"\n",
        b"btard-identity-1\n" + b"\xff" * 64 + b"\n",
        b"btard-identity-2\n" + b"ab" * 32 + b"\n",
        b"ab" * 32 + b"\n",
    ],
    ids=["empty", "noise", "no-key", "short", "long", "not-hex", "not-ascii", "other-version", "no-header"],
)
def test_a_damaged_key_is_refused(key_file, content):
    """Anything but one header and 32 bytes in hex is called damaged."""
    key_file.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        load_identity(key_file)


def test_a_directory_is_no_key(tmp_path):
    """A path that cannot be read is one clear line, not an OSError."""
    with pytest.raises(ConfigError, match="cannot read the key"):
        load_identity(tmp_path)


def test_load_or_create_makes_a_key_once(tmp_path):
    """The second call finds the key of the first."""
    path = tmp_path / "identity.key"
    assert load_or_create_identity(path).seed == load_or_create_identity(path).seed
